#include "core/adapter.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace kandinsky {

int64_t adapter_rank(const Adapter& adapter) { return adapter.down.shape.empty() ? 0 : adapter.down.shape[0]; }

void check_adapter(const Adapter& adapter, const std::string& name, const std::vector<int64_t>& shape) {
  check_source(adapter.down);
  check_source(adapter.up);
  const auto columns = [](const std::vector<int64_t>& s) { return s.size() < 2 ? 0 : element_count({s.begin() + 1, s.end()}); };
  const int64_t rank = adapter_rank(adapter);
  if (shape.size() < 2 || adapter.up.shape.empty() || rank < 1 || columns(adapter.down.shape) != columns(shape) ||
      adapter.up.shape[0] != shape[0] || columns(adapter.up.shape) != rank) {
    fail(ErrorCode::shape_mismatch, "{} of shape {}: adapters of shapes {} and {} do not fit", name, shape_text(shape),
         shape_text(adapter.down.shape), shape_text(adapter.up.shape));
  }
}

namespace {

std::vector<float> read_floats(SourceFiles& files, TensorSource source, bool as_matrix, int threads,
                               const std::atomic<bool>* cancel) {
  source.target = Type::f32;
  if (!source.stride.empty() && source.shape.size() > 2)
    fail(ErrorCode::bad_file, "{}: {} is a kernel with strides", source.path, source.name);
  // What has two dimensions is read in order.
  if (!as_matrix && source.shape.size() > 2)
    source.shape = {source.shape[0], element_count(source.shape) / source.shape[0]};
  std::vector<float> values(element_count(source.shape));
  read_tensor(files, source, threads, cancel, [&](uint64_t offset, const void* data, size_t size) {
    std::memcpy(reinterpret_cast<std::byte*>(values.data()) + offset, data, size);
  });
  return values;
}

}  // namespace

StackedAdapters read_adapters(SourceFiles& files, const std::vector<Adapter>& adapters, bool as_matrix, int64_t rank,
                              int threads, const std::atomic<bool>* cancel) {
  StackedAdapters result;
  for (const Adapter& adapter : adapters) result.rank += adapter_rank(adapter);
  result.rank = std::max(result.rank, rank);
  int64_t first = 0;
  for (const Adapter& adapter : adapters) {
    const int64_t own = adapter_rank(adapter), out = adapter.up.shape[0];
    const std::vector<float> down = read_floats(files, adapter.down, as_matrix, threads, cancel);
    const std::vector<float> up = read_floats(files, adapter.up, as_matrix, threads, cancel);
    const int64_t in = static_cast<int64_t>(down.size()) / own;
    result.down.resize(result.rank * in);
    result.up.resize(out * result.rank);
    std::copy(down.begin(), down.end(), result.down.begin() + first * in);
    for (int64_t o = 0; o < out; ++o) {
      for (int64_t r = 0; r < own; ++r) result.up[o * result.rank + first + r] = adapter.scale * up[o * own + r];
    }
    first += own;
  }
  return result;
}

void add_adapters(const StackedAdapters& adapters, int64_t first, float* values, int64_t count) {
  const int64_t rank = adapters.rank, in = static_cast<int64_t>(adapters.down.size()) / rank;
  for (int64_t done = 0; done < count;) {
    const int64_t row = (first + done) / in, column = (first + done) % in, now = std::min(in - column, count - done);
    for (int64_t r = 0; r < rank; ++r) {
      const float factor = adapters.up[row * rank + r];
      const float* down = &adapters.down[r * in + column];
      for (int64_t i = 0; i < now; ++i) values[done + i] += factor * down[i];
    }
    done += now;
  }
}

}  // namespace kandinsky
