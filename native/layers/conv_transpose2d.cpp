#include "layers/conv_transpose2d.h"

namespace kandinsky {

ggml_tensor* ConvTranspose2d::forward(Graph& g, const ImageInput& x) const {
  ggml_context* c = g.context();
  ggml_tensor* squares = g.ops().linear(g, {weight, nullptr}, g.ops().image_operand(g, x));
  const int64_t out = bias->ne[0], width = squares->ne[1], height = squares->ne[2], batch = squares->ne[3];
  // Lines of squares to lines of pixels.
  squares = ggml_reshape_4d(c, squares, out * kernel, kernel, width, height * batch);
  ggml_tensor* y = ggml_cont(c, ggml_permute(c, squares, 0, 2, 1, 3));
  return ggml_add(c, ggml_reshape_4d(c, y, out, kernel * width, kernel * height, batch), bias);
}

}  // namespace kandinsky
