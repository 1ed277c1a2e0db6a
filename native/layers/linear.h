// y = x Wᵀ + b over the innermost dimension.
#pragma once

#include "core/graph.h"
#include "core/weights.h"

namespace kandinsky {

struct Linear {
  Linear() = default;
  Linear(const Weights& w, int64_t in, int64_t out, bool has_bias = true)
      : weight(w["weight"].matrix(out, in)), bias(has_bias ? w["bias"].get({out}) : nullptr) {}

  /// x: ne = {in, ...}; returns {out, ...}.
  ggml_tensor* forward(Graph& g, ggml_tensor* x) const;

  ggml_tensor* weight = nullptr;
  ggml_tensor* bias = nullptr;
};

/// weight: ne = {in, out}, any type; rows: ne = {in, ...} float32. Products are accumulated in float32.
ggml_tensor* matrix_product(Graph& g, ggml_tensor* weight, ggml_tensor* rows);

}  // namespace kandinsky
