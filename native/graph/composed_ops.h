// The operations composed of ggml's own, which any of its backends computes. Every operand is float32.
#pragma once

#include "graph/graph.h"
#include "graph/low_rank.h"

namespace kandinsky {

/// weight: ne = {in, out}, any type; rows: ne = {in, ...} float32. Products are accumulated in float32.
ggml_tensor* matrix_product(Graph& g, ggml_tensor* weight, ggml_tensor* rows);

/// The base of those by kernels, too, for what no kernel takes.
class ComposedOps : public Ops {
 public:
  explicit ComposedOps(const LowRankWeights* adapters) : adapters_(adapters) {}

  Operand operand(Graph& g, ggml_tensor* x, bool silu) override;
  Operand image_operand(Graph& g, const ImageInput& input) override;
  ggml_tensor* image(Graph& g, const ImageInput& input) override;
  Image side_by_side(Graph& g, ggml_tensor* x, ggml_tensor* beside) override;
  ggml_tensor* linear(Graph& g, const Product& product, Operand x, Activation activation,
                      ggml_tensor* residual) override;
  Operand linear_operand(Graph& g, const Product& product, Operand x, Activation activation) override;
  Operand projection(Graph& g, const Product& product, Operand x, int64_t head_dim) override;
  ggml_tensor* conv2d(Graph& g, const Convolution& conv, const ImageInput& input, ggml_tensor* residual,
                      const Tile* tile) override;
  ggml_tensor* layer_norm(Graph& g, const LayerNormalization& norm, ggml_tensor* x) override;
  Operand layer_norm_operand(Graph& g, const LayerNormalization& norm, ggml_tensor* x) override;
  void add_statistics(Graph& g, GroupStatistics& statistics, ggml_tensor* part) override;
  Operand attention(Graph& g, const AttentionInput& input) override;

 protected:
  /// What adapters add to products with `weight`, or null.
  const LowRank* added_to(const ggml_tensor* weight) const { return adapters_ ? adapters_->find(weight) : nullptr; }
  /// up (down x) + residual, or without adapters the residual alone, which may be null.
  ggml_tensor* with_added(Graph& g, const ggml_tensor* weight, Operand x, ggml_tensor* residual);

 private:
  const LowRankWeights* adapters_;
};

}  // namespace kandinsky
