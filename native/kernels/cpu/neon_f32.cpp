// AArch64 NEON: float32 activations, float32 weights: exact results.
#ifdef __aarch64__
#include <arm_neon.h>

#define KERNELS cpu_kernels_neon_f32
#define KERNELS_NAME "neon_f32"
#define WEIGHTS_F32
#include "kernels/cpu/unit_begin.h"

#include "kernels/cpu/simd_neon.h"
#include "kernels/cpu/act_f32.h"
#include "kernels/cpu/unit_end.h"

#endif  // __aarch64__
