// How much main memory this process may still use. ggml's CPU backend calls all of it free, whatever is in use.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace kandinsky {

/// Bytes that can be used without swapping: what Linux calls available, or less where a control group of this process, or
/// one around it, has a limit. Nothing on other systems.
/// @param root where /proc and /sys are, for tests
std::optional<uint64_t> available_host_memory(const std::string& root = "");

}  // namespace kandinsky
