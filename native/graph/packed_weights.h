// Weights in the layout that the kernels multiply, made once instead of at every use.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <new>
#include <utility>

#include "ggml.h"
#include "kernels/kernels.h"

namespace kandinsky {

class WeightStore;

/// Memory that starts on a cache line, not initialized.
class AlignedBytes {
 public:
  AlignedBytes() = default;
  explicit AlignedBytes(size_t size)
      : data_(static_cast<unsigned char*>(::operator new(size, std::align_val_t(64)))), size_(size) {}
  unsigned char* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(unsigned char* data) const { ::operator delete(data, std::align_val_t(64)); }
  };
  std::unique_ptr<unsigned char, Free> data_;
  size_t size_ = 0;
};

/// Shared by the graphs of a network, each of which holds what it reads: a weight stays packed for as long as one of
/// them does. 2 bytes per weight for direct products, 3.6 and 8 for Winograd's F2 and F4.
class PackedWeights {
 public:
  PackedWeights(const KernelTable& kernels, const WeightStore& store, int threads)
      : kernels_(kernels), store_(store), threads_(threads) {}

  using Data = std::shared_ptr<const AlignedBytes>;

  /// `weight` packed for `algorithm`, or null.
  Data find(const ggml_tensor* weight, Algorithm algorithm) const;
  /// Packs `rows`, which are those of `weight`, into `data`. The memory that they are read from is given back where it
  /// can be.
  Data add(const ggml_tensor* weight, const WeightRows& rows, Algorithm algorithm, AlignedBytes data);
  /// Of all that is held now.
  uint64_t bytes() const;

 private:
  void pack(const WeightRows& rows, Algorithm algorithm, unsigned char* data) const;

  const KernelTable& kernels_;
  const WeightStore& store_;
  int threads_;
  std::map<std::pair<const ggml_tensor*, Algorithm>, std::weak_ptr<const AlignedBytes>> entries_;
};

}  // namespace kandinsky
