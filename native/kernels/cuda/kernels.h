// The kernels of NVIDIA GPUs from compute capability 8.0 on as entries of the table (kernels/kernels.h).
#pragma once

#include "kernels/kernels.h"

namespace kandinsky::cuda {

/// The queries of wider heads would not fit into the shared memory that every card has.
constexpr int max_head_dim = 512;

size_t packed_size(Algorithm algorithm, const WeightRows* rows);
size_t conv_scratch(const ConvArgs* args, int);
size_t gemm_scratch(const GemmArgs* args, int);
size_t prepare_scratch(const PrepareArgs* args, int);
size_t attention_scratch(const AttentionArgs* args, int);
void pack(const PackArgs* args, WorkContext* work, int ith, int nth);
void conv(const ConvArgs* args, WorkContext* work, int ith, int nth);
void gemm(const GemmArgs* args, WorkContext* work, int ith, int nth);
void prepare(const PrepareArgs* args, WorkContext* work, int ith, int nth);
void group_sums(const PrepareArgs* args, WorkContext* work, int ith, int nth);
void layer_norm(const LayerNormArgs* args, WorkContext* work, int ith, int nth);
void attention(const AttentionArgs* args, WorkContext* work, int ith, int nth);

}  // namespace kandinsky::cuda
