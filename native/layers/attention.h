// Multi-head attention.
#pragma once

#include "layers/linear.h"
#include "layers/norm.h"

namespace kandinsky {

/// Additive, [queries, keys]: minus infinity for later tokens.
HostTensor causal_mask(int64_t length);

struct Attention {
  struct Names {
    const char *q, *k, *v, *out;
  };
  static constexpr Names diffusers_names{"to_q", "to_k", "to_v", "to_out.0"};
  static constexpr Names transformers_names{"q_proj", "k_proj", "v_proj", "out_proj"};

  struct Options {
    int64_t channels;          // of the queries and the result
    int64_t heads;
    int64_t context_channels;  // of keys and values
    int64_t inner_channels;    // of all heads together
    bool has_bias = true;
    bool is_scaled = true;     // by 1 / sqrt(head width)
  };

  Attention() = default;
  /// Throws unsupported_model unless the heads divide the inner channels.
  Attention(const Weights& w, const Names& names, const Options& options);
  Attention(const Weights& w, const Names& names, int64_t channels, int64_t heads)
      : Attention(w, names, {channels, heads, channels, channels}) {}

  /// residual + attention(x). x: ne = {C, tokens, B}; mask, added: see AttentionInput. `own`, if not null, receives the
  /// keys and values of x.
  ggml_tensor* forward(Graph& g, Operand x, ggml_tensor* mask, const KeysValues& added, ggml_tensor* residual,
                       KeysValues* own = nullptr) const;
  /// Keys and values of a context.
  KeysValues keys_values(Graph& g, Operand context) const { return {project(g, to_k, context), project(g, to_v, context)}; }
  /// residual + attention of x to these keys and values.
  ggml_tensor* attend(Graph& g, Operand x, const KeysValues& to, ggml_tensor* mask, const KeysValues& added,
                      ggml_tensor* residual) const;
  /// What attention reads of a linear layer.
  Operand project(Graph& g, const Linear& linear, Operand x) const;

  Linear to_q, to_k, to_v, to_out;
  int64_t heads = 1;
  bool is_scaled = true;
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
