#include "graph/low_rank.h"

#include <algorithm>
#include <set>

#include "core/adapter.h"
#include "core/error.h"
#include "core/weights.h"

namespace kandinsky {

namespace {

// Kernels read rows of whole vectors; rows of zeros add nothing.
constexpr int64_t rank_multiple = 8;

}  // namespace

LowRankWeights::LowRankWeights(Device& device, const WeightStore& store, const std::vector<TensorSource>& sources,
                               const std::atomic<bool>* cancel) {
  context_.reset(ggml_init({(2 * sources.size() + 1) * ggml_tensor_overhead(), nullptr, true}));
  if (!context_) fail(ErrorCode::out_of_memory, "{}: no memory for the adapters of {} weights", store.component(), sources.size());
  for (const TensorSource& source : sources) {
    const WeightStore::Matrix matrix = store.matrix(source.name);
    const int64_t in = matrix.tensor->ne[0], out = matrix.tensor->ne[1];
    int64_t rank = 0;
    for (const Adapter& adapter : source.adapters) {
      check_adapter(adapter, source.name, matrix.shape);
      rank += adapter_rank(adapter);
    }
    rank = (rank + rank_multiple - 1) / rank_multiple * rank_multiple;
    if (rank == 0) continue;
    LowRank& entry = entries_[matrix.tensor];
    if (entry.down) fail(ErrorCode::invalid_argument, "{}: {} is given twice", store.component(), source.name);
    entry.down = ggml_new_tensor_2d(context_.get(), GGML_TYPE_F32, in, rank);
    entry.up = ggml_new_tensor_2d(context_.get(), GGML_TYPE_F32, rank, out);
    bytes_ += ggml_nbytes(entry.down) + ggml_nbytes(entry.up);
  }
  if (entries_.empty()) return;
  buffer_.reset(ggml_backend_alloc_ctx_tensors(context_.get(), device.backend()));
  if (!buffer_) fail(ErrorCode::out_of_memory, "{}: no {} MB of memory for adapters", store.component(), megabytes(bytes_));
  ggml_backend_buffer_set_usage(buffer_.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
  SourceFiles files;
  for (const TensorSource& source : sources) {
    const auto found = entries_.find(store.matrix(source.name).tensor);
    if (found == entries_.end()) continue;
    const LowRank& entry = found->second;
    const StackedAdapters values = read_adapters(files, source.adapters, true, entry.up->ne[0], device.threads(), cancel);
    ggml_backend_tensor_set(entry.down, values.down.data(), 0, ggml_nbytes(entry.down));
    ggml_backend_tensor_set(entry.up, values.up.data(), 0, ggml_nbytes(entry.up));
  }
}

const LowRank* LowRankWeights::find(const ggml_tensor* weight) const {
  const auto found = entries_.find(weight);
  return found == entries_.end() ? nullptr : &found->second;
}

}  // namespace kandinsky
