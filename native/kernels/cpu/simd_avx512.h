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
INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf vround(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf vscale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }
INLINE float vsum(vf a) { return _mm512_reduce_add_ps(a); }
INLINE float vmaximum(vf a) { return _mm512_reduce_max_ps(a); }
INLINE void cpu_pause() { _mm_pause(); }
