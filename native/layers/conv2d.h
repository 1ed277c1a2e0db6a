// 2-D convolution on channels-last images.
#pragma once

#include "core/weights.h"
#include "graph/graph.h"

namespace kandinsky {

struct Conv2d {
  struct Options {
    int stride = 1;
    // Rows and columns of zeros on the top and left, and on the bottom and right.
    int padding_before = 0;
    int padding_after = 0;
    bool has_bias = true;
    Sensitivity sensitivity = Sensitivity::inner;
  };

  Conv2d() = default;
  Conv2d(const Weights& w, int64_t in, int64_t out, int kernel, const Options& options)
      : convolution{{w["weight"].kernel(out, in, kernel, kernel), options.has_bias ? w["bias"].get({out}) : nullptr},
                    kernel,
                    options.stride,
                    options.padding_before,
                    options.padding_after,
                    options.sensitivity} {}
  /// Stride 1, padded such that the size stays (odd kernels).
  Conv2d(const Weights& w, int64_t in, int64_t out, int kernel, Sensitivity sensitivity = Sensitivity::inner)
      : Conv2d(w, in, out, kernel, {1, (kernel - 1) / 2, (kernel - 1) / 2, true, sensitivity}) {}

  /// x: ne = {in, W, H, B}, contiguous; see Ops::conv2d.
  ggml_tensor* forward(Graph& g, const ImageInput& x, ggml_tensor* residual = nullptr,
                       const Tile* tile = nullptr) const {
    return g.ops().conv2d(g, convolution, x, residual, tile);
  }

  Convolution convolution;
};

}  // namespace kandinsky
