#include "kernels/cuda/table.h"

#include "kernels/cuda/kernels.h"

namespace kandinsky {

namespace {
size_t no_scratch(const PackArgs*, int) { return 0; }
size_t no_scratch(const LayerNormArgs*, int) { return 0; }
}  // namespace

const KernelTable& cuda_kernels() {
  static const KernelTable table = {"cuda",
                                    NumberType::bf16,
                                    NumberType::bf16,
                                    1,
                                    false,
                                    cuda::max_head_dim,
                                    cuda::packed_size,
                                    nullptr,
                                    {no_scratch, cuda::pack},
                                    {cuda::prepare_scratch, cuda::prepare},
                                    {cuda::prepare_scratch, cuda::group_sums},
                                    {no_scratch, cuda::layer_norm},
                                    {cuda::conv_scratch, cuda::conv},
                                    {cuda::gemm_scratch, cuda::gemm},
                                    {cuda::attention_scratch, cuda::attention}};
  return table;
}

}  // namespace kandinsky
