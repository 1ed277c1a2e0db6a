// Opens a translation unit: the only headers it may include, the attributes that its code uses, and the anonymous
// namespace that all of it is in ("kernels/cpu/unit_end.h" closes that). Between the two a unit includes its vectors
// and defines act_t (activations), weight_t (packed weights), aload, astore and narrow.
//
// Defined before:
//   KERNELS, KERNELS_NAME  the table that the unit makes, and its name
//   ACT_BF16               the dot product takes bfloat16: the unit also defines vb, bload, broadcast_pair and vdot
//   WEIGHTS_F32            weights are not narrowed

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

namespace kandinsky {

/// Gives the rest of the thread's time slice away. Lives in dispatch.cpp, because it needs the standard library.
void kernel_yield();

namespace {
