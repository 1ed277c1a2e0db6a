// What one translation unit consists of, after it has defined its vectors, and the table of it.

#include "kernels/cpu/common.h"
#include "kernels/cpu/microkernel.h"
#include "kernels/cpu/expand.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/winograd.h"
#include "kernels/cpu/prepare.h"
#include "kernels/cpu/attention.h"

template <typename T>
constexpr NumberType number_type() {
  return sizeof(T) == sizeof(float) ? NumberType::f32 : NumberType::bf16;
}

#ifdef MATRIX_UNIT
constexpr bool kHasWinograd = false;
#else
constexpr bool kHasWinograd = true;
#endif

}  // namespace

extern const KernelTable KERNELS = {KERNELS_NAME,
                                   number_type<act_t>(),
                                   number_type<weight_t>(),
                                   kPanel,
                                   kHasWinograd,
                                   1 << 30,
                                   packed_size,
                                   expander,
                                   {pack_scratch, pack},
                                   {prepare_scratch, prepare},
                                   {prepare_scratch, group_sums},
                                   {layer_norm_scratch, layer_norm},
                                   {conv_scratch, conv},
                                   {gemm_scratch, gemm},
                                   {attention_scratch, attention}};

}  // namespace kandinsky
