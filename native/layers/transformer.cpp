#include "layers/transformer.h"

namespace kandinsky {

TransformerBlock::TransformerBlock(const Weights& w, const Names& names, const Options& options)
    : norm1(w[names.norm1], options.channels, options.eps),
      norm2(w[names.norm2], options.channels, options.eps),
      attention(w[names.attention], names.projections, options.channels, options.heads),
      fc1(w[names.fc1], options.channels, options.hidden_channels),
      fc2(w[names.fc2], options.hidden_channels, options.channels),
      activation(options.activation) {}

ggml_tensor* TransformerBlock::forward(Graph& g, ggml_tensor* x, ggml_tensor* mask, const KeysValues& added,
                                       KeysValues* own) const {
  x = attention.forward(g, norm1.operand(g, x), mask, added, x, own);
  const Operand hidden = g.ops().linear_operand(g, fc1.product, norm2.operand(g, x), activation);
  return fc2.forward(g, hidden, Activation::none, x);
}

}  // namespace kandinsky
