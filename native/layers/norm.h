// Normalizations on channels-last activations.
#pragma once

#include "core/graph.h"
#include "layers/conv2d.h"

namespace kandinsky {

struct LayerNorm {
  LayerNorm() = default;
  LayerNorm(const Weights& w, int64_t channels, float eps)
      : weight(w["weight"].get({channels})), bias(w["bias"].get({channels})), eps(eps) {}

  /// `is_operand`: only products will read the result (layers/prepare.h).
  ggml_tensor* forward(Graph& g, ggml_tensor* x, bool is_operand = false) const;

  ggml_tensor* weight = nullptr;
  ggml_tensor* bias = nullptr;
  float eps = 0;
};

/// Statistics per sample and group of adjacent channels, over all pixels.
struct GroupNorm {
  GroupNorm() = default;
  /// Throws unsupported_model unless `groups` divides `channels`.
  GroupNorm(const Weights& w, int64_t channels, int groups, float eps);

  struct Then {
    // y * (1 + scale) + shift, both ne = {channels, 1, 1, B}: the time embedding's part ("scale_shift").
    ggml_tensor* scale = nullptr;
    ggml_tensor* shift = nullptr;
    bool silu = false;
  };
  /// x: ne = {channels, W, H, B}, contiguous. `statistics`: null for those of x, see ImageInput.
  ggml_tensor* forward(Graph& g, ggml_tensor* x, const Then& then, const GroupStatistics* statistics = nullptr) const;

  ggml_tensor* weight = nullptr;
  ggml_tensor* bias = nullptr;
  int groups = 1;
  float eps = 0;
};

/// What GroupNorm has to know of an image (a batch of one) of which it is given one part at a time.
class GroupStatistics {
 public:
  explicit GroupStatistics(int groups) : groups_(groups) {}

  /// Adds one part, ne = {channels, W, H, 1}, contiguous, and computes its share before all that is added to `g` later.
  void add(Graph& g, ggml_tensor* part);

  /// With the CPU kernels, for PrepareArgs: float64 {2, groups}.
  ggml_tensor* sums() const { return sums_; }
  int64_t pixels() const { return pixels_; }
  /// Without them: a part with mean 0 and variance 1 in each group.
  ggml_tensor* normalized(Graph& g, ggml_tensor* part, float eps) const;

 private:
  void add_composed(Graph& g, ggml_tensor* part);

  int groups_;
  int64_t pixels_ = 0;
  ggml_tensor* sums_ = nullptr;
  ggml_tensor* mean_ = nullptr;     // {1, groups}
  ggml_tensor* squares_ = nullptr;  // {1, groups}: sums of squared differences from the mean
};

/// GroupNorm, or in the decoder of MoVQ diffusers' SpatialNorm (https://huggingface.co/papers/2209.09002):
/// group_norm(x) * conv_y(zq) + conv_b(zq) with the latents zq enlarged to the size of x. SpatialNorm has 32 groups
/// and eps 1e-6 whatever the config says.
struct Norm2d {
  struct Options {
    int groups = 32;
    float eps = 1e-6f;
    int64_t zq_channels = 0;  // > 0: SpatialNorm
  };

  Norm2d() = default;
  Norm2d(const Weights& w, int64_t channels, const Options& options);

  /// Of ggml's own operations; with the CPU kernels it is part of a pass (layers/prepare.h).
  /// `zq`: ne = {zq_channels, w, h, B}; W and H are whole multiples of w and h. Ignored by GroupNorm.
  ggml_tensor* forward(Graph& g, ggml_tensor* x, ggml_tensor* zq, const GroupNorm::Then& then,
                       const GroupStatistics* statistics = nullptr) const;

  GroupNorm norm;
  bool is_spatial = false;
  Conv2d conv_y, conv_b;
};

}  // namespace kandinsky
