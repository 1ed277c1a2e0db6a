// AVX-512 F, BW, VL and DQ (Skylake-X, Ice Lake): float32 activations, weights widened in the product.
#ifdef __x86_64__
#include <immintrin.h>

#define KERNELS cpu_kernels_avx512
#define KERNELS_NAME "avx512"
#include "kernels/cpu/unit_begin.h"

#include "kernels/cpu/simd_avx512.h"

// A weight word holds the bfloat16 values of two consecutive input channels; widening one is a shift or a mask.
INLINE vf vlow_half(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
INLINE vf vhigh_half(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32((int)0xffff0000)));
}

INLINE void narrow(uint16_t* p, vf x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}

#include "kernels/cpu/act_f32.h"
#include "kernels/cpu/unit_end.h"

#endif  // __x86_64__
