#include "layers/linear.h"

namespace kandinsky {

ggml_tensor* Linear::forward(Graph& g, ggml_tensor* x, Activation activation, ggml_tensor* residual) const {
  if (!ggml_is_contiguous(x)) x = ggml_cont(g.context(), x);
  return forward(g, g.ops().operand(g, x), activation, residual);
}

}  // namespace kandinsky
