// Transposed 2-D convolution whose stride is its kernel size (no overlap, no padding): each pixel becomes a square.
#pragma once

#include "core/weights.h"
#include "graph/graph.h"

namespace kandinsky {

struct ConvTranspose2d {
  ConvTranspose2d(const Weights& w, int64_t in, int64_t out, int kernel)
      : weight(w["weight"].get({in, out, kernel, kernel})), bias(w["bias"].get({out})), kernel(kernel) {}

  /// x: ne = {in, W, H, B}, contiguous; returns {out, kernel * W, kernel * H, B}.
  ggml_tensor* forward(Graph& g, ggml_tensor* x) const;

  // The reference stores transposed kernels as [in, out, kh, kw], so that its matrix (core/types.h) has a row of
  // everything that one input channel adds to a square: ne = {kernel * kernel * out, in}. As left operand of a matrix
  // product it must be turned, which quantized rows cannot be; the few there are stay float32.
  ggml_tensor* weight;
  ggml_tensor* bias;
  int kernel;
};

}  // namespace kandinsky
