#include "layers/linear.h"

namespace kandinsky {

ggml_tensor* matrix_product(Graph& g, ggml_tensor* weight, ggml_tensor* rows) {
  ggml_tensor* product = ggml_mul_mat(g.context(), weight, rows);
  // CUDA would accumulate products with float16 weights in float16.
  ggml_prec_set_acc(product, GGML_PREC_F32);
  return product;
}

ggml_tensor* Linear::forward(Graph& g, ggml_tensor* x) const {
  ggml_context* c = g.context();
  // One product of two matrices instead of one for each batch element.
  ggml_tensor* rows = ggml_reshape_2d(c, ggml_is_contiguous(x) ? x : ggml_cont(c, x), x->ne[0], ggml_nrows(x));
  ggml_tensor* y = matrix_product(g, weight, rows);
  if (bias) y = ggml_add(c, y, bias);
  return ggml_reshape_4d(c, y, y->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}

}  // namespace kandinsky
