// AArch64 NEON: float32 activations, weights widened in the product.
#ifdef __aarch64__
#include <arm_neon.h>

#define KERNELS cpu_kernels_neon
#define KERNELS_NAME "neon"
#include "kernels/cpu/unit_begin.h"

#include "kernels/cpu/simd_neon.h"
#include "kernels/cpu/act_f32.h"
#include "kernels/cpu/unit_end.h"

#endif  // __aarch64__
