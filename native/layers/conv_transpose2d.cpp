#include "layers/conv_transpose2d.h"

#include "graph/composed_ops.h"

namespace kandinsky {

ggml_tensor* ConvTranspose2d::forward(Graph& g, ggml_tensor* x) const {
  ggml_context* c = g.context();
  const int64_t out = bias->ne[0], width = x->ne[1], height = x->ne[2], batch = x->ne[3];
  ggml_tensor* turned = ggml_cont(c, ggml_transpose(c, weight));
  ggml_tensor* squares = matrix_product(g, turned, ggml_reshape_2d(c, x, x->ne[0], width * height * batch));
  // Lines of squares to lines of pixels.
  squares = ggml_reshape_4d(c, squares, out * kernel, kernel, width, height * batch);
  ggml_tensor* y = ggml_cont(c, ggml_permute(c, squares, 0, 2, 1, 3));
  return ggml_add(c, ggml_reshape_4d(c, y, out, kernel * width, kernel * height, batch), bias);
}

}  // namespace kandinsky
