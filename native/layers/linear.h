// y = activation(x Wᵀ + b) + residual over the innermost dimension.
#pragma once

#include "core/weights.h"
#include "graph/graph.h"

namespace kandinsky {

struct Linear {
  Linear() = default;
  Linear(const Weights& w, int64_t in, int64_t out, bool has_bias = true)
      : product{w["weight"].matrix(out, in), has_bias ? w["bias"].get({out}) : nullptr} {}

  /// x: ne = {in, ...}; returns {out, ...}. residual: float32, shaped like the result, or null.
  ggml_tensor* forward(Graph& g, ggml_tensor* x, Activation activation = Activation::none,
                       ggml_tensor* residual = nullptr) const;
  ggml_tensor* forward(Graph& g, Operand x, Activation activation = Activation::none,
                       ggml_tensor* residual = nullptr) const {
    return g.ops().linear(g, product, x, activation, residual);
  }

  Product product;
};

}  // namespace kandinsky
