// What adapters (LoRA, https://arxiv.org/abs/2106.09685) add to matrices: y += up (down x), beside the matrix, which stays
// as it is, mapped or quantized. A few MB that can change while a network stays loaded.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/tensor_source.h"
#include "ggml.h"

namespace kandinsky {

class WeightStore;

/// The additions of all adapters to one matrix, as one: their ranks stacked. float32.
struct LowRank {
  ggml_tensor* down = nullptr;  // ne = {in, rank}, of a convolution {kernel * kernel * in, rank}
  ggml_tensor* up = nullptr;    // ne = {rank, out}, with the adapters' scales
};

/// Under the names of a network's weights.
class LowRankWeights {
 public:
  /// Reads the adapters of each of `sources` (TensorSource::adapters); the rest of a source is not looked at.
  /// Throws invalid_argument for a weight that `store` has not as a matrix, shape_mismatch, bad_file, out_of_memory.
  LowRankWeights(Device& device, const WeightStore& store, const std::vector<TensorSource>& sources,
                 const std::atomic<bool>* cancel);

  /// Null where nothing is added to `weight`.
  const LowRank* find(const ggml_tensor* weight) const;
  uint64_t bytes() const { return bytes_; }

 private:
  std::map<const ggml_tensor*, LowRank> entries_;
  ggml_context_ptr context_;
  ggml_backend_buffer_ptr buffer_;
  uint64_t bytes_ = 0;
};

}  // namespace kandinsky
