#include "core/parallel.h"

#include <algorithm>
#include <exception>
#include <thread>
#include <vector>

namespace kandinsky {

void parallel_ranges(int64_t count, int64_t smallest, int threads, const std::function<void(int64_t, int64_t)>& body) {
  const int64_t available = threads > 0 ? threads : std::max(1u, std::thread::hardware_concurrency());
  const int64_t ranges = std::clamp<int64_t>(count / std::max<int64_t>(smallest, 1), 1, available);
  std::vector<std::exception_ptr> errors(ranges);
  const auto run = [&](int64_t index) {
    try {
      body(count * index / ranges, count * (index + 1) / ranges);
    } catch (...) {
      errors[index] = std::current_exception();
    }
  };
  std::vector<std::thread> workers;
  workers.reserve(ranges);
  for (int64_t index = 1; index < ranges; ++index) {
    try {
      workers.emplace_back(run, index);
    } catch (const std::exception&) {
      run(index);  // no thread, or no memory for one, to be had: slower, not wrong
    }
  }
  run(0);
  for (std::thread& worker : workers) worker.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace kandinsky
