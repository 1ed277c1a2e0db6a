// Multi-head attention.
#pragma once

#include "layers/linear.h"
#include "layers/norm.h"

namespace kandinsky {

/// softmax(q kᵀ / sqrt(head width) + mask) v for each head. q: ne = {C, queries, B}; k, v: {C, keys, B};
/// mask: null or float32 {keys, queries, 1, 1 or B}. Returns {C, queries, B}.
ggml_tensor* attention(Graph& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, int64_t heads, ggml_tensor* mask);

struct Attention {
  struct Names {
    const char *q, *k, *v, *out;
  };
  static constexpr Names diffusers_names{"to_q", "to_k", "to_v", "to_out.0"};
  static constexpr Names transformers_names{"q_proj", "k_proj", "v_proj", "out_proj"};

  Attention() = default;
  /// Throws unsupported_model unless `heads` divides `channels`.
  Attention(const Weights& w, const Names& names, int64_t channels, int64_t heads);

  /// Keys and values that are put in front of x's own, ne = {C, more, B}.
  struct Extra {
    ggml_tensor* k = nullptr;
    ggml_tensor* v = nullptr;
  };
  /// x: ne = {C, tokens, B}.
  ggml_tensor* forward(Graph& g, ggml_tensor* x, ggml_tensor* mask, const Extra& extra) const;

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

  /// x: ne = {C, W, H, B}; context: {context_channels, tokens, B} or null; zq: see Norm2d.
  ggml_tensor* forward(Graph& g, ggml_tensor* x, ggml_tensor* context, ggml_tensor* zq) const;

  Norm2d norm;
  Attention attention;
  bool has_context = false;
  Linear add_k_proj, add_v_proj;
};

}  // namespace kandinsky
