// 2-D convolution on channels-last images.
#pragma once

#include "core/graph.h"
#include "core/weights.h"
#include "layers/prepare.h"

namespace kandinsky {

/// Some rows of an image of `height` rows.
struct Strip {
  int64_t first, count, height;
};

struct Conv2d {
  struct Options {
    int stride = 1;
    // Rows and columns of zeros on the top and left, and on the bottom and right.
    int padding_before = 0;
    int padding_after = 0;
    bool has_bias = true;
  };

  Conv2d() = default;
  Conv2d(const Weights& w, int64_t in, int64_t out, int kernel, const Options& options)
      : weight(w["weight"].kernel(out, in, kernel, kernel)),
        bias(options.has_bias ? w["bias"].get({out}) : nullptr),
        kernel(kernel),
        options(options) {}
  /// Stride 1, padded such that the size stays (odd kernels).
  Conv2d(const Weights& w, int64_t in, int64_t out, int kernel)
      : Conv2d(w, in, out, kernel, {1, (kernel - 1) / 2, (kernel - 1) / 2, true}) {}

  /// x: ne = {in, W, H, B}, contiguous; returns {out, W', H', B} with W' = (W + padding - kernel) / stride + 1.
  /// residual: null, or added to the result.
  /// strip: null, or the rows of the result to make, where x is a part of a batch of one: `first` counts from the row
  /// that row 0 of x gives, `height` is that of the whole image's result.
  ggml_tensor* forward(Graph& g, const ImageInput& x, ggml_tensor* residual = nullptr,
                       const Strip* strip = nullptr) const;

  ggml_tensor* weight = nullptr;  // ne = {kernel * kernel * in, out}, see core/types.h
  ggml_tensor* bias = nullptr;
  int kernel = 1;
  Options options;
  Algorithm limit = Algorithm::winograd_f4;  // of the CPU kernels: in bfloat16 F4 rounds by 1 %, F2 by 0.4 %
};

}  // namespace kandinsky
