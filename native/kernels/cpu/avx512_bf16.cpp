// AVX-512 with BF16 (Zen 4 and later, Cooper Lake, Sapphire Rapids): bfloat16 activations, 32 products per instruction.
#ifdef __x86_64__
#include <immintrin.h>

#define KERNELS cpu_kernels_avx512_bf16
#define KERNELS_NAME "avx512_bf16"
#define ACT_BF16
#include "kernels/cpu/unit_begin.h"

#include "kernels/cpu/simd_avx512.h"

using act_t = uint16_t;
using weight_t = uint16_t;
using vb = __m512i;

INLINE vb bload(const uint16_t* p) { return _mm512_loadu_si512(p); }
INLINE vb broadcast_pair(const uint16_t* p) {
  int pair;
  memcpy(&pair, p, sizeof pair);
  return _mm512_set1_epi32(pair);
}
INLINE vf vdot(vf sum, vb a, vb b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }

INLINE vf aload(const act_t* p) { return vload_bf16(p); }
INLINE void narrow(uint16_t* p, vf x) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(x)); }
INLINE void astore(act_t* p, vf x) { narrow(p, x); }

#include "kernels/cpu/unit_end.h"

#endif  // __x86_64__
