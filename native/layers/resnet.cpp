#include "layers/resnet.h"

namespace kandinsky {

ResnetBlock2D::ResnetBlock2D(const Weights& w, int64_t in, int64_t out, const Options& options)
    : norm1(w["norm1"], in, options.norm),
      norm2(w["norm2"], out, options.norm),
      conv1(w["conv1"], in, out, 3, options.sensitivity),
      conv2(w["conv2"], out, out, 3, options.sensitivity),
      resample(options.resample) {
  if (options.temb_channels > 0) time_emb_proj = Linear(w["time_emb_proj"], options.temb_channels, 2 * out);
  if (in != out) conv_shortcut = Conv2d(w["conv_shortcut"], in, out, 1);
}

ggml_tensor* ResnetBlock2D::forward(Graph& g, const Image& x, Operand silu_temb, ggml_tensor* zq) const {
  ImageInput first(x), shortcut(x);
  first.norm = norm1.with(g, zq);
  first.silu = true;
  first.resample = shortcut.resample = resample;
  ImageInput second(conv1.forward(g, first));
  second.norm = norm2.with(g, zq);
  second.silu = true;
  if (time_emb_proj) second.scale_shift = time_emb_proj->forward(g, silu_temb);
  return conv2.forward(g, second, conv_shortcut ? conv_shortcut->forward(g, shortcut) : g.ops().image(g, shortcut));
}

}  // namespace kandinsky
