#include "layers/attention.h"

#include <cmath>

#include "core/error.h"

namespace kandinsky {

HostTensor causal_mask(int64_t length) {
  HostTensor mask;
  mask.shape = {length, length};
  for (int64_t query = 0; query < length; ++query) {
    for (int64_t key = 0; key < length; ++key) mask.f32.push_back(key > query ? -INFINITY : 0.0f);
  }
  return mask;
}

Attention::Attention(const Weights& w, const Names& names, const Options& o)
    : to_q(w[names.q], o.channels, o.inner_channels, o.has_bias),
      to_k(w[names.k], o.context_channels, o.inner_channels, o.has_bias),
      to_v(w[names.v], o.context_channels, o.inner_channels, o.has_bias),
      to_out(w[names.out], o.inner_channels, o.channels, o.has_bias),
      heads(o.heads),
      is_scaled(o.is_scaled) {
  if (heads <= 0 || o.inner_channels % heads != 0) {
    fail(ErrorCode::unsupported_model,
         "{}: expected a divisor of the {} channels for the number of attention heads but received {}", w.where(),
         o.inner_channels, heads);
  }
}

Operand Attention::project(Graph& g, const Linear& linear, Operand x) const {
  return g.ops().projection(g, linear.product, x, linear.product.weight->ne[1] / heads);
}

ggml_tensor* Attention::attend(Graph& g, Operand x, const KeysValues& to, ggml_tensor* mask, const KeysValues& added,
                               ggml_tensor* residual) const {
  const Operand y = g.ops().attention(g, {project(g, to_q, x), to, heads, mask, added, is_scaled});
  return to_out.forward(g, y, Activation::none, residual);
}

ggml_tensor* Attention::forward(Graph& g, Operand x, ggml_tensor* mask, const KeysValues& added,
                                ggml_tensor* residual, KeysValues* own) const {
  const KeysValues of_x = keys_values(g, x);
  if (own) *own = of_x;
  return attend(g, x, of_x, mask, added, residual);
}

ImageAttention::ImageAttention(const Weights& w, int64_t channels, const Options& options)
    : norm(w[options.norm.zq_channels > 0 ? "spatial_norm" : "group_norm"], channels, options.norm),
      attention(w, Attention::diffusers_names, channels, options.heads),
      has_context(options.context_channels > 0) {
  if (!has_context) return;
  add_k_proj = Linear(w["add_k_proj"], options.context_channels, channels);
  add_v_proj = Linear(w["add_v_proj"], options.context_channels, channels);
}

ggml_tensor* ImageAttention::forward(Graph& g, ggml_tensor* x, Operand context, ggml_tensor* zq) const {
  ggml_context* c = g.context();
  const auto as_tokens = [c](ggml_tensor* image) {
    return ggml_reshape_3d(c, image, image->ne[0], image->ne[1] * image->ne[2], image->ne[3]);
  };
  KeysValues added;
  if (has_context) {
    added = {g.keep(attention.project(g, add_k_proj, context)), g.keep(attention.project(g, add_v_proj, context))};
  }
  ImageInput input(x);
  input.norm = norm.with(g, zq);
  const Operand tokens(as_tokens(g.ops().image_operand(g, input).tensor));
  ggml_tensor* y = attention.forward(g, tokens, nullptr, added, as_tokens(x));
  return ggml_reshape_4d(c, y, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}

}  // namespace kandinsky
