// Multi-head attention.
#pragma once

#include "layers/linear.h"
#include "layers/norm.h"

namespace kandinsky {

/// What attention looks at, ne = {C, tokens, B} each.
struct KeysValues {
  ggml_tensor* k = nullptr;
  ggml_tensor* v = nullptr;
};

/// softmax(q kᵀ / sqrt(head width) + mask) v for each head. q: ne = {C, queries, B}; mask: null or float32
/// {keys, queries, 1, 1 or B}; added: null, or keys and values in front of `own`. Returns {C, queries, B}.
/// All are operands (layers/prepare.h) where attention_takes_operands().
ggml_tensor* attention(Graph& g, ggml_tensor* q, const KeysValues& own, int64_t heads, ggml_tensor* mask,
                       const KeysValues& added = {});
bool attention_takes_operands(const Graph& g, int64_t head_dim);

struct Attention {
  struct Names {
    const char *q, *k, *v, *out;
  };
  static constexpr Names diffusers_names{"to_q", "to_k", "to_v", "to_out.0"};
  static constexpr Names transformers_names{"q_proj", "k_proj", "v_proj", "out_proj"};

  Attention() = default;
  /// Throws unsupported_model unless `heads` divides `channels`.
  Attention(const Weights& w, const Names& names, int64_t channels, int64_t heads);

  /// residual + attention(x). x: ne = {C, tokens, B}, float32 or an operand; added: see attention(). `own`, if not
  /// null, receives the keys and values of x.
  ggml_tensor* forward(Graph& g, ggml_tensor* x, ggml_tensor* mask, const KeysValues& added, ggml_tensor* residual,
                       KeysValues* own = nullptr) const;

  Linear to_q, to_k, to_v, to_out;
  int64_t heads = 1;
};

/// Attention between the pixels of an image: x + attention(norm(x)), in the UNet of Kandinsky 2 with the conditioning
/// tokens as further keys and values (diffusers' AttnAddedKVProcessor).
struct ImageAttention {
  struct Options {
    int64_t heads = 1;
    int64_t context_channels = 0;  // > 0: has add_k_proj and add_v_proj
    Norm2d::Options norm;
  };

  ImageAttention() = default;
  ImageAttention(const Weights& w, int64_t channels, const Options& options);

  /// x: ne = {C, W, H, B}; context: {context_channels, tokens, B}, an operand that stays the same from run to run, or
  /// null; zq: see Norm2d.
  ggml_tensor* forward(Graph& g, ggml_tensor* x, ggml_tensor* context, ggml_tensor* zq) const;

  Norm2d norm;
  Attention attention;
  bool has_context = false;
  Linear add_k_proj, add_v_proj;
};

}  // namespace kandinsky
