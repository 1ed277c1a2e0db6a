// Pre-norm transformer block: x += attention(norm1(x)); x += fc2(act(fc1(norm2(x)))).
#pragma once

#include "layers/activation.h"
#include "layers/attention.h"

namespace kandinsky {

struct TransformerBlock {
  struct Names {
    const char *norm1, *attention, *norm2, *fc1, *fc2;
    Attention::Names projections;
  };
  /// transformers' CLIPEncoderLayer.
  static constexpr Names clip_names{"layer_norm1", "self_attn", "layer_norm2",
                                    "mlp.fc1",     "mlp.fc2",   Attention::transformers_names};
  /// transformers' ViT layer (DPTViTLayer).
  static constexpr Names vit_names{
      "layernorm_before", "attention", "layernorm_after", "intermediate.dense", "output.dense",
      {"attention.query", "attention.key", "attention.value", "output.dense"}};
  /// diffusers' BasicTransformerBlock without cross-attention; norm3 is what stands before the feed-forward part.
  static constexpr Names diffusers_names{"norm1",         "attn1",    "norm3",
                                         "ff.net.0.proj", "ff.net.2", Attention::diffusers_names};

  struct Options {
    int64_t channels, heads, hidden_channels;
    float eps;
    Activation activation;
  };
  TransformerBlock(const Weights& w, const Names& names, const Options& options);

  /// x: ne = {C, tokens, B}; mask, added: see AttentionInput; own: see Attention::forward.
  ggml_tensor* forward(Graph& g, ggml_tensor* x, ggml_tensor* mask, const KeysValues& added = {},
                       KeysValues* own = nullptr) const;

  LayerNorm norm1, norm2;
  Attention attention;
  Linear fc1, fc2;
  Activation activation;
};

}  // namespace kandinsky
