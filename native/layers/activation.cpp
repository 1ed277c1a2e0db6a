#include "layers/activation.h"

#include "core/error.h"

namespace kandinsky {

Activation activation_from(const Config& config, const std::string& key, const std::string& fallback) {
  const std::string name = config.text(key, fallback);
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "quick_gelu") return Activation::quick_gelu;
  fail(ErrorCode::unsupported_model, "{} config: expected silu, gelu or quick_gelu for {} but received \"{}\"",
       config.component(), key, name);
}

}  // namespace kandinsky
