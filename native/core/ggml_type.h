// Between Type and ggml's element types; apart from types.h so that only code that uses ggml sees ggml.h.
#pragma once

#include <optional>

#include "core/types.h"
#include "ggml.h"

namespace kandinsky {

/// Throws internal for the types that ggml does not have (u8, boolean, f8_*: only ever stored in a source file).
ggml_type to_ggml_type(Type type);

/// Nothing for a type that this engine does not read.
std::optional<Type> from_ggml_type(uint32_t type);

}  // namespace kandinsky
