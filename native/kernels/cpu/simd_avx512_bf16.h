// bfloat16 activations and weights on AVX-512 with its bfloat16 instructions, after "kernels/cpu/simd_avx512.h".

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

#define HAS_Q8_WORDS
/// The 32 values of a q8_0 block (expand.h) as 16 words of two weights.
INLINE void q8_0_words(const unsigned char* block, uint32_t* words) {
  uint16_t half;
  memcpy(&half, block, sizeof half);
  const vf scale = _mm512_cvtph_ps(_mm256_set1_epi16((short)half));
  const vf low = vmul(vload_int8((const int8_t*)block + 2), scale), high = vmul(vload_int8((const int8_t*)block + 18), scale);
  _mm512_storeu_si512(words, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}
