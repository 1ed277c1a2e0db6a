#include "layers/resnet.h"

#include "layers/resample.h"

namespace kandinsky {

ResnetBlock2D::ResnetBlock2D(const Weights& w, int64_t in, int64_t out, const Options& options)
    : norm1(w["norm1"], in, options.norm),
      norm2(w["norm2"], out, options.norm),
      conv1(w["conv1"], in, out, 3),
      conv2(w["conv2"], out, out, 3),
      resample(options.resample) {
  if (options.temb_channels > 0) time_emb_proj = Linear(w["time_emb_proj"], options.temb_channels, 2 * out);
  if (in != out) conv_shortcut = Conv2d(w["conv_shortcut"], in, out, 1);
}

ggml_tensor* ResnetBlock2D::forward(Graph& g, ggml_tensor* x, ggml_tensor* silu_temb, ggml_tensor* zq) const {
  ggml_context* c = g.context();
  GroupNorm::Then then;
  then.silu = true;
  ggml_tensor* y = norm1.forward(g, x, zq, then);
  if (resample == Resample::up) {
    y = nearest_resize(g, y, 2 * x->ne[1], 2 * x->ne[2]);
    x = nearest_resize(g, x, 2 * x->ne[1], 2 * x->ne[2]);
  } else if (resample == Resample::down) {
    y = average_pool_2x2(g, y);
    x = average_pool_2x2(g, x);
  }
  y = conv1.forward(g, y);
  if (time_emb_proj) {
    ggml_tensor* scale_shift = time_emb_proj->forward(g, silu_temb);
    const int64_t out = y->ne[0], batch = y->ne[3];
    const size_t stride = scale_shift->nb[1];
    then.scale = ggml_cont(c, ggml_view_4d(c, scale_shift, out, 1, 1, batch, stride, stride, stride, 0));
    then.shift =
        ggml_cont(c, ggml_view_4d(c, scale_shift, out, 1, 1, batch, stride, stride, stride, out * sizeof(float)));
  }
  y = conv2.forward(g, norm2.forward(g, y, zq, then));
  return ggml_add(c, y, conv_shortcut ? conv_shortcut->forward(g, x) : x);
}

}  // namespace kandinsky
