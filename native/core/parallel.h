// Splits a loop over threads.
#pragma once

#include <cstdint>
#include <functional>

namespace kandinsky {

/// Calls body(begin, end) for consecutive ranges that cover [0, count), on up to `threads` threads (0: all logical
/// processors), each range `smallest` long or longer. Throws what a range has thrown, after all have ended.
void parallel_ranges(int64_t count, int64_t smallest, int threads, const std::function<void(int64_t, int64_t)>& body);

}  // namespace kandinsky
