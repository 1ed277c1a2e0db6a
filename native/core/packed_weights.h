// Weights in the layout that the CPU kernels multiply, made once instead of at every use.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "core/kernel_nodes.h"

namespace kandinsky {

class WeightStore;

/// Kept for all graphs of a network. 2 bytes per weight for direct products, 3.6 and 8 for Winograd's F2 and F4.
class PackedWeights {
 public:
  PackedWeights(const CpuKernels& kernels, const WeightStore& store, int threads)
      : kernels_(kernels), store_(store), threads_(threads) {}

  /// `weight` packed for `algorithm`, or null; what was packed for another algorithm (another image size) is freed, so
  /// no graph that uses it may be run again.
  const void* find(const ggml_tensor* weight, Algorithm algorithm);
  /// Packs `rows`, which are those of `weight`, into `data` and keeps it. The memory that they are read from is given
  /// back where it can be.
  void add(const ggml_tensor* weight, const WeightRows& rows, Algorithm algorithm, AlignedBytes data);
  /// No graph that was built with them may be run again.
  void clear() {
    entries_.clear();
    bytes_ = 0;
  }
  uint64_t bytes() const { return bytes_; }

 private:
  struct Entry {
    Algorithm algorithm;
    AlignedBytes data;
  };
  void pack(const WeightRows& rows, Algorithm algorithm, unsigned char* data) const;

  const CpuKernels& kernels_;
  const WeightStore& store_;
  int threads_;
  std::unordered_map<const ggml_tensor*, Entry> entries_;
  uint64_t bytes_ = 0;
};

}  // namespace kandinsky
