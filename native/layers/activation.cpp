#include "layers/activation.h"

#include "core/error.h"

namespace kandinsky {

Activation activation_from(const Config& config, const std::string& key, const std::string& fallback) {
  const std::string name = config.text(key, fallback);
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "quick_gelu") return Activation::quick_gelu;
  fail(ErrorCode::unsupported_model, "%s config: expected silu, gelu or quick_gelu for %s but received \"%s\"",
       config.component().c_str(), key.c_str(), name.c_str());
}

ggml_tensor* activate(Graph& g, Activation activation, ggml_tensor* x) {
  ggml_context* c = g.context();
  switch (activation) {
    case Activation::none: return x;
    case Activation::silu: return ggml_silu(c, x);
    case Activation::gelu: return ggml_gelu_erf(c, x);
    // x sigmoid(a x) = silu(a x) / a; ggml_gelu_quick looks its values up in a float16 table on the CPU.
    case Activation::quick_gelu: return ggml_scale(c, ggml_silu(c, ggml_scale(c, x, 1.702f)), 1 / 1.702f);
  }
  fail(ErrorCode::internal, "activation %d", static_cast<int>(activation));
}

}  // namespace kandinsky
