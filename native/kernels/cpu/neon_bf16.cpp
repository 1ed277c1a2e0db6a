// AArch64 NEON with BF16 (Graviton 3, Apple M2 and later): bfloat16 activations, 8 products per instruction.
#ifdef __aarch64__
#include <arm_neon.h>

#define KERNELS cpu_kernels_neon_bf16
#define KERNELS_NAME "neon_bf16"
#define ACT_BF16
#include "kernels/cpu/unit_begin.h"

#include "kernels/cpu/simd_neon.h"

using act_t = uint16_t;
using weight_t = uint16_t;
using vb = bfloat16x8_t;

INLINE vb bload(const uint16_t* p) { return vreinterpretq_bf16_u16(vld1q_u16(p)); }
INLINE vb broadcast_pair(const uint16_t* p) { return vreinterpretq_bf16_u32(vld1q_dup_u32((const uint32_t*)p)); }
INLINE vf vdot(vf sum, vb a, vb b) { return vbfdotq_f32(sum, a, b); }

INLINE vf aload(const act_t* p) { return vload_bf16(p); }
INLINE void astore(act_t* p, vf x) { vst1_u16(p, vreinterpret_u16_bf16(vcvt_bf16_f32(x))); }

#include "kernels/cpu/unit_end.h"

#endif  // __aarch64__
