// 4 float lanes in the vector extension of GCC and Clang: any machine, whatever the compiler makes of it.
// Included once per translation unit, inside its anonymous namespace.

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
constexpr int kLanes = 4;
constexpr int kVectors = 2;

INLINE vf vset1(float x) { return vf{x, x, x, x}; }
INLINE vf vzero() { return vset1(0); }
INLINE vf vload(const float* p) {
  vf x;
  memcpy(&x, p, sizeof x);
  return x;
}
INLINE void vstore(float* p, vf x) { memcpy(p, &x, sizeof x); }
INLINE vf vadd(vf a, vf b) { return a + b; }
INLINE vf vsub(vf a, vf b) { return a - b; }
INLINE vf vmul(vf a, vf b) { return a * b; }
INLINE vf vdiv(vf a, vf b) { return a / b; }
INLINE vf vfma(vf a, vf b, vf c) { return a * b + c; }
INLINE void add_product(vf& sum, vf a, vf b) { sum = vfma(a, b, sum); }
INLINE vf vmax(vf a, vf b) { return a > b ? a : b; }
INLINE vf vmin(vf a, vf b) { return a < b ? a : b; }
// Adding and subtracting 1.5 * 2^23 rounds to nearest for the |a| < 2^22 that exp2 needs.
INLINE vf vround(vf a) { return (a + vset1(12582912.0f)) - vset1(12582912.0f); }
INLINE vf vscale2(vf a, vf n) { return (vf)((vi)a + (__builtin_convertvector(n, vi) << 23)); }
INLINE float vsum(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }
INLINE float vmaximum(vf a) {
  const float x = a[0] > a[2] ? a[0] : a[2], y = a[1] > a[3] ? a[1] : a[3];
  return x > y ? x : y;
}
INLINE void cpu_pause() {}

INLINE vi vload_uint16(const uint16_t* p) { return vi{p[0], p[1], p[2], p[3]}; }
/// The exponent's bias differs by 112; multiplying by that also makes subnormal halves normal. The largest exponent
/// stays the largest: infinity and NaN.
INLINE vf vload_half(const uint16_t* p) {
  const vi half = vload_uint16(p), special = (half & 0x7c00) == 0x7c00;
  const vf scaled = (vf)((half & 0x7fff) << 13 | (half & 0x8000) << 16) * vset1(0x1p112f);
  return (vf)((vi)scaled | (special & 0x7f800000));
}
INLINE vf vload_bf16(const uint16_t* p) { return (vf)(vload_uint16(p) << 16); }
INLINE vf vload_int8(const int8_t* p) { return vf{(float)p[0], (float)p[1], (float)p[2], (float)p[3]}; }
