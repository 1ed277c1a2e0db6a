// AVX-512 F, BW, VL and DQ (Skylake-X, Ice Lake): float32 activations, float32 weights: exact results.
#ifdef __x86_64__
#include <immintrin.h>

#define KERNELS cpu_kernels_avx512_f32
#define KERNELS_NAME "avx512_f32"
#define WEIGHTS_F32
#include "kernels/cpu/unit_begin.h"

#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/act_f32.h"
#include "kernels/cpu/unit_end.h"

#endif  // __x86_64__
