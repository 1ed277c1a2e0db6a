// AVX2 with FMA (Haswell to Zen 3, Alder Lake): float32 activations, float32 weights: exact results.
#ifdef __x86_64__
#include <immintrin.h>

#define KERNELS cpu_kernels_avx2_f32
#define KERNELS_NAME "avx2_f32"
#define WEIGHTS_F32
#include "kernels/cpu/unit_begin.h"

#include "kernels/cpu/simd_avx2.h"
#include "kernels/cpu/act_f32.h"
#include "kernels/cpu/unit_end.h"

#endif  // __x86_64__
