// AVX-512 with BF16 (Zen 4 and later, Cooper Lake): bfloat16 activations, 32 products per instruction.
#ifdef __x86_64__
#include <immintrin.h>

#define KERNELS cpu_kernels_avx512_bf16
#define KERNELS_NAME "avx512_bf16"
#define ACT_BF16
#include "kernels/cpu/unit_begin.h"

#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/simd_avx512_bf16.h"

#include "kernels/cpu/unit_end.h"

#endif  // __x86_64__
