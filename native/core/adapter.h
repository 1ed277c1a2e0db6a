// Adapters of matrices in files (LoRA): two thin matrices, up [out, rank] and down [rank, in], whose product is added.
#pragma once

#include "core/tensor_source.h"

namespace kandinsky {

int64_t adapter_rank(const Adapter& adapter);

/// Throws shape_mismatch unless the adapter fits the weight `name` of a matrix or a convolution [out, in, kh, kw].
void check_adapter(const Adapter& adapter, const std::string& name, const std::vector<int64_t>& shape);

/// The adapters of one weight as one: their ranks stacked, and rows of zeros up to `rank`.
struct StackedAdapters {
  int64_t rank = 0;
  std::vector<float> down;  // [rank, in]
  std::vector<float> up;    // [out, rank], times the adapters' scales
};

/// `as_matrix`: kernels of convolutions turned as in core/types.h, otherwise as they lie in the file.
StackedAdapters read_adapters(SourceFiles& files, const std::vector<Adapter>& adapters, bool as_matrix, int64_t rank,
                              int threads, const std::atomic<bool>* cancel);

/// Adds rows x down to `values`: those of the [out, in] matrix from element `first` on.
void add_adapters(const StackedAdapters& adapters, int64_t first, float* values, int64_t count);

}  // namespace kandinsky
