// Opens a translation unit: the only headers it may include, and the attributes that its code uses.
// KERNELS and KERNELS_NAME are defined before; "kernels/cpu/unit.h" closes the anonymous namespace opened here.

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cpu/kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
