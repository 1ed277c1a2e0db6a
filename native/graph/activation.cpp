#include "graph/activation.h"

#include "core/error.h"

namespace kandinsky {

ggml_tensor* activate(Graph& g, Activation activation, ggml_tensor* x) {
  ggml_context* c = g.context();
  switch (activation) {
    case Activation::none: return x;
    case Activation::silu: return ggml_silu(c, x);
    case Activation::gelu: return ggml_gelu_erf(c, x);
    // x sigmoid(a x) = silu(a x) / a; ggml_gelu_quick looks its values up in a float16 table on the CPU.
    case Activation::quick_gelu: return ggml_scale(c, ggml_silu(c, ggml_scale(c, x, 1.702f)), 1 / 1.702f);
  }
  fail(ErrorCode::internal, "activation {}", static_cast<int>(activation));
}

}  // namespace kandinsky
