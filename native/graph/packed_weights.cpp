#include "graph/packed_weights.h"

#include <algorithm>

#include "core/parallel.h"
#include "core/weights.h"

namespace kandinsky {

PackedWeights::Data PackedWeights::find(const ggml_tensor* weight, Algorithm algorithm) const {
  const auto found = entries_.find({weight, algorithm});
  return found == entries_.end() ? nullptr : found->second.lock();
}

PackedWeights::Data PackedWeights::add(const ggml_tensor* weight, const WeightRows& rows, Algorithm algorithm,
                                       AlignedBytes data) {
  pack(rows, algorithm, data.data());
  store_.drop_pages(weight);
  Data shared = std::make_shared<const AlignedBytes>(std::move(data));
  entries_[{weight, algorithm}] = shared;
  return shared;
}

uint64_t PackedWeights::bytes() const {
  uint64_t bytes = 0;
  for (const auto& [key, entry] : entries_) {
    if (const Data data = entry.lock()) bytes += data->size();
  }
  return bytes;
}

/// Each thread packs a range of panels as if it were a matrix of its own.
void PackedWeights::pack(const WeightRows& rows, Algorithm algorithm, unsigned char* data) const {
  const auto part = [&](int64_t first_row, int64_t end_row) {
    WeightRows some = rows;
    some.data = static_cast<const unsigned char*>(rows.data) + first_row * rows.row_bytes;
    some.out_features = static_cast<int>(end_row - first_row);
    return some;
  };
  const int64_t panel = kernels_.panel, panels = (rows.out_features + panel - 1) / panel;
  parallel_ranges(panels, 1, threads_, [&](int64_t first, int64_t end) {
    const WeightRows before = part(0, first * panel);
    PackArgs args{};
    args.algorithm = algorithm;
    args.rows = part(first * panel, std::min<int64_t>(end * panel, rows.out_features));
    args.dst = data + kernels_.packed_size(algorithm, &before);
    const AlignedBytes scratch(kernels_.pack.scratch_size(&args, 1));
    WorkContext work;
    work.scratch = scratch.data();
    kernels_.pack.run(&args, &work, 0, 1);
  });
}

}  // namespace kandinsky
