// Normalizations on channels-last activations.
#pragma once

#include "layers/conv2d.h"

namespace kandinsky {

struct LayerNorm {
  LayerNorm() = default;
  LayerNorm(const Weights& w, int64_t channels, float eps)
      : norm{w["weight"].get({channels}), w["bias"].get({channels}), eps} {}

  ggml_tensor* forward(Graph& g, ggml_tensor* x) const { return g.ops().layer_norm(g, norm, x); }
  /// Where only products will read the result.
  Operand operand(Graph& g, ggml_tensor* x) const { return g.ops().layer_norm_operand(g, norm, x); }

  LayerNormalization norm;
};

/// x / sqrt(mean(x²) + eps) * weight (https://arxiv.org/abs/1910.07467): no mean is subtracted, and there is no bias.
struct RmsNorm {
  RmsNorm(const Weights& w, int64_t channels, float eps) : weight(w["weight"].get({channels})), eps(eps) {}

  ggml_tensor* forward(Graph& g, ggml_tensor* x) const {
    return ggml_mul(g.context(), ggml_rms_norm(g.context(), x, eps), weight);
  }

  ggml_tensor* weight;
  float eps;
};

/// GroupNorm, or in the decoder of MoVQ diffusers' SpatialNorm (https://huggingface.co/papers/2209.09002):
/// group_norm(x) * conv_y(zq) + conv_b(zq) with the latents zq enlarged to the size of x. SpatialNorm has 32 groups
/// and eps 1e-6 whatever the config says.
///
/// It is part of the pass that reads the image: ImageInput::norm.
struct Norm2d {
  struct Options {
    int groups = 32;
    float eps = 1e-6f;
    int64_t zq_channels = 0;  // > 0: SpatialNorm
  };

  Norm2d() = default;
  /// Throws unsupported_model unless the groups divide `channels`.
  Norm2d(const Weights& w, int64_t channels, const Options& options);

  /// `zq`: ne = {zq_channels, w, h, B}, of whose w and h the image's size are whole multiples; ignored by GroupNorm.
  /// `statistics`: null for those of the image.
  GroupNormalization with(Graph& g, ggml_tensor* zq, const GroupStatistics* statistics = nullptr) const;

  GroupNormalization norm;
  bool is_spatial = false;
  Conv2d conv_y, conv_b;
};

}  // namespace kandinsky
