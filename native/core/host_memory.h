// How much main memory this process may still use. ggml's CPU backend calls all of it free, whatever is in use.
#pragma once

#include <cstdint>
#include <optional>

namespace kandinsky {

/// Bytes that can be used without swapping: what Linux calls available, or less inside a container with a limit.
/// Nothing on other systems.
std::optional<uint64_t> available_host_memory();

}  // namespace kandinsky
