// AMX (Sapphire Rapids and later): bfloat16 activations, 16 x 16 x 32 products per instruction.
#ifdef KANDINSKY_HAS_AMX
#include <immintrin.h>

#define KERNELS cpu_kernels_amx_bf16
#define KERNELS_NAME "amx_bf16"
#define ACT_BF16
#define MATRIX_UNIT
#include "kernels/cpu/unit_begin.h"

#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/simd_avx512_bf16.h"

#include "kernels/cpu/unit_end.h"

#endif  // KANDINSKY_HAS_AMX
