// Multi-head attention.
#pragma once

#include "layers/linear.h"
#include "layers/norm.h"

namespace kandinsky {

struct Attention {
  struct Names {
    const char *q, *k, *v, *out;
  };
  static constexpr Names diffusers_names{"to_q", "to_k", "to_v", "to_out.0"};
  static constexpr Names transformers_names{"q_proj", "k_proj", "v_proj", "out_proj"};

  Attention() = default;
  /// Throws unsupported_model unless `heads` divides `channels`.
  Attention(const Weights& w, const Names& names, int64_t channels, int64_t heads);

  /// residual + attention(x). x: ne = {C, tokens, B}; mask, added: see AttentionInput. `own`, if not null, receives the
  /// keys and values of x.
  ggml_tensor* forward(Graph& g, Operand x, ggml_tensor* mask, const KeysValues& added, ggml_tensor* residual,
                       KeysValues* own = nullptr) const;
  /// What attention reads of a linear layer.
  Operand project(Graph& g, const Linear& linear, Operand x) const;

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

  /// x: ne = {C, W, H, B}; context: {context_channels, tokens, B}, which stays the same from run to run, or nothing;
  /// zq: see Norm2d.
  ggml_tensor* forward(Graph& g, ggml_tensor* x, Operand context, ggml_tensor* zq) const;

  Norm2d norm;
  Attention attention;
  bool has_context = false;
  Linear add_k_proj, add_v_proj;
};

}  // namespace kandinsky
