// Transposed 2-D convolution whose stride is its kernel size (no overlap, no padding): each pixel becomes a square.
#pragma once

#include "core/weights.h"
#include "graph/graph.h"

namespace kandinsky {

struct ConvTranspose2d {
  ConvTranspose2d(const Weights& w, int64_t in, int64_t out, int kernel)
      : weight(w["weight"].transposed_kernel(in, out, kernel, kernel)), bias(w["bias"].get({out})), kernel(kernel) {}

  /// x: {in, W, H, B}; returns {out, kernel * W, kernel * H, B}.
  ggml_tensor* forward(Graph& g, const ImageInput& x) const;

  ggml_tensor* weight;  // ne = {in, kernel * kernel * out}, see core/types.h
  ggml_tensor* bias;
  int kernel;
};

}  // namespace kandinsky
