// Element-wise activation functions by their names in configs.
#pragma once

#include <string>

#include "core/config.h"
#include "graph/activation.h"

namespace kandinsky {

/// Reads config[key]: "silu"/"swish", "gelu" (exact, with erf: not the tanh approximation) or "quick_gelu"
/// (x * sigmoid(1.702 x)). Throws unsupported_model for anything else.
Activation activation_from(const Config& config, const std::string& key, const std::string& fallback);

}  // namespace kandinsky
