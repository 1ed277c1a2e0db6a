#include "layers/linear.h"

#include "layers/activation.h"
#include "layers/prepare.h"

namespace kandinsky {

ggml_tensor* matrix_product(Graph& g, ggml_tensor* weight, ggml_tensor* rows) {
  ggml_tensor* product = ggml_mul_mat(g.context(), weight, rows);
  // CUDA would accumulate products with float16 weights in float16.
  ggml_prec_set_acc(product, GGML_PREC_F32);
  return product;
}

ggml_tensor* product_node(Graph& g, ggml_tensor* weight, ggml_tensor* bias, ggml_tensor* rows,
                          const Epilogue& epilogue) {
  KernelNodes& nodes = *g.kernels();
  const int64_t out = weight->ne[1], out_stride = epilogue.operand ? even(static_cast<int>(out)) : out;
  GemmArgs args{};
  args.rows = static_cast<int>(ggml_nrows(rows));
  args.src_stride = rows->ne[0];
  args.weights = nodes.weights(weight, 1, Algorithm::direct);
  args.bias = bias ? static_cast<const float*>(bias->data) : nullptr;
  args.activation = epilogue.activation;
  args.residual_stride = out;
  args.f32_dst = !epilogue.operand;
  args.dst_stride = out_stride;
  return nodes.add<GemmArgs>(
      g.context(), nodes.kernels().gemm, args,
      {epilogue.operand ? nodes.act_type() : GGML_TYPE_F32, {out_stride, rows->ne[1], rows->ne[2], rows->ne[3]}},
      {rows, epilogue.residual}, [rows, residual = epilogue.residual](GemmArgs& a, ggml_tensor* y) {
        a.src = rows->data;
        a.residual = residual ? static_cast<const float*>(residual->data) : nullptr;
        a.dst = y->data;
      });
}

ggml_tensor* Linear::forward(Graph& g, ggml_tensor* x, const Epilogue& epilogue) const {
  ggml_context* c = g.context();
  if (!ggml_is_contiguous(x)) x = ggml_cont(c, x);
  if (g.kernels()) return product_node(g, weight, bias, operand(g, x), epilogue);
  // One product of two matrices instead of one for each batch element.
  ggml_tensor* y = matrix_product(g, weight, ggml_reshape_2d(c, x, x->ne[0], ggml_nrows(x)));
  if (bias) y = ggml_add(c, y, bias);
  y = activate(g, epilogue.activation, ggml_reshape_4d(c, y, y->ne[0], x->ne[1], x->ne[2], x->ne[3]));
  return epilogue.residual ? ggml_add(c, y, epilogue.residual) : y;
}

}  // namespace kandinsky
