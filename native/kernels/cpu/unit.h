// What one translation unit consists of, after it has defined its vectors. The unit defines KERNELS (the table's name)
// and, if its dot product takes bfloat16, ACT_BF16 with vb, bload, broadcast_pair and vdot, or WEIGHTS_F32 for weights that
// are not narrowed.

#include "kernels/cpu/common.h"
#include "kernels/cpu/microkernel.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/winograd.h"
#include "kernels/cpu/prepare.h"
#include "kernels/cpu/attention.h"

}  // namespace

#ifdef ACT_BF16
static constexpr NumberType kNumberType = NumberType::bf16;
#else
static constexpr NumberType kNumberType = NumberType::f32;
#endif

#ifdef WEIGHTS_F32
static constexpr NumberType kWeightType = NumberType::f32;
#else
static constexpr NumberType kWeightType = NumberType::bf16;
#endif

extern const CpuKernels KERNELS = {KERNELS_NAME,
                                   kNumberType,
                                   kWeightType,
                                   kPanel,
                                   packed_size,
                                   dequantize_q8_0,
                                   {pack_scratch, pack},
                                   {prepare_scratch, prepare},
                                   {layer_norm_scratch, layer_norm},
                                   {conv_scratch, conv},
                                   {gemm_scratch, gemm},
                                   {attention_scratch, attention}};
