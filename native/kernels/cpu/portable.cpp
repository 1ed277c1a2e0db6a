// Any machine: float32 throughout, 4 lanes of the compiler's own vectors.
#define KERNELS cpu_kernels_portable
#define KERNELS_NAME "portable"
#define WEIGHTS_F32
#include "kernels/cpu/unit_begin.h"

#include "kernels/cpu/simd_portable.h"
#include "kernels/cpu/act_f32.h"
#include "kernels/cpu/unit_end.h"
