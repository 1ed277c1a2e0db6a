// y = activation(x Wᵀ + b) + residual over the innermost dimension.
#pragma once

#include "core/graph.h"
#include "core/weights.h"

namespace kandinsky {

/// What happens to a product on its way to memory, in this order.
struct Epilogue {
  Activation activation = Activation::none;
  ggml_tensor* residual = nullptr;  // float32, shaped like the result
  bool operand = false;             // only products and attention will read the result: see layers/prepare.h
};

struct Linear {
  Linear() = default;
  Linear(const Weights& w, int64_t in, int64_t out, bool has_bias = true)
      : weight(w["weight"].matrix(out, in)), bias(has_bias ? w["bias"].get({out}) : nullptr) {}

  /// x: ne = {in, ...}, float32 or an operand; returns {out, ...}.
  ggml_tensor* forward(Graph& g, ggml_tensor* x, const Epilogue& epilogue = {}) const;

  ggml_tensor* weight = nullptr;
  ggml_tensor* bias = nullptr;
};

/// weight: ne = {in, out}, any type; rows: ne = {in, ...} float32. Products are accumulated in float32. Of ggml's own
/// operations.
ggml_tensor* matrix_product(Graph& g, ggml_tensor* weight, ggml_tensor* rows);

/// A product by the CPU kernels; bias may be null.
ggml_tensor* product_node(Graph& g, ggml_tensor* weight, ggml_tensor* bias, ggml_tensor* rows,
                          const Epilogue& epilogue);

}  // namespace kandinsky
