// 16 float lanes of AVX-512 (F, BW, VL, DQ). Included once per translation unit, inside its anonymous namespace.

using vf = __m512;
constexpr int kLanes = 16;
constexpr int kVectors = 4;  // 6 rows x 4 vectors of sums, 4 weights and 1 broadcast fit in 32 registers

INLINE vf vzero() { return _mm512_setzero_ps(); }
INLINE vf vset1(float x) { return _mm512_set1_ps(x); }
INLINE vf vload(const float* p) { return _mm512_loadu_ps(p); }
INLINE void vstore(float* p, vf x) { _mm512_storeu_ps(p, x); }
INLINE vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
// sum += a * b in place. As an intrinsic, GCC 12 likes to overwrite `a` instead and then runs out of registers.
INLINE void add_product(vf& sum, vf a, vf b) { __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf vround(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf vscale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }
INLINE float vsum(vf a) { return _mm512_reduce_add_ps(a); }
INLINE float vmaximum(vf a) { return _mm512_reduce_max_ps(a); }
INLINE void cpu_pause() { _mm_pause(); }

#define HAS_TRANSPOSE
/// Word k of row n (rows of 16 words) to dst[k * stride + n], for the first `words` of the 16 words.
INLINE void transpose_16x16(const uint32_t* src, int words, uint32_t* dst, int64_t stride) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(src + 16 * i);
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  // a[4 r + c] holds columns c, c + 4, c + 8, c + 12 of rows 4 r to 4 r + 3: what is left is a 4 x 4 transpose of
  // lanes.
  for (int c = 0; c < 4; ++c) {
    const __m512i low = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88), high = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xdd);
    const __m512i low2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88);
    const __m512i high2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xdd);
    b[c] = _mm512_shuffle_i32x4(low, low2, 0x88);
    b[c + 8] = _mm512_shuffle_i32x4(low, low2, 0xdd);
    b[c + 4] = _mm512_shuffle_i32x4(high, high2, 0x88);
    b[c + 12] = _mm512_shuffle_i32x4(high, high2, 0xdd);
  }
  for (int i = 0; i < words; ++i) _mm512_storeu_si512(dst + i * stride, b[i]);
}

INLINE vf vload_half(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
INLINE vf vload_bf16(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
INLINE vf vload_int8(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
