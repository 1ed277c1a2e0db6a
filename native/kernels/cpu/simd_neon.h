// 4 float lanes of AArch64 NEON. Included once per translation unit, inside its anonymous namespace.

using vf = float32x4_t;
constexpr int kLanes = 4;
constexpr int kVectors = 4;  // 6 rows x 4 vectors of sums, 4 weights and 1 broadcast fit in 32 registers

INLINE vf vzero() { return vdupq_n_f32(0); }
INLINE vf vset1(float x) { return vdupq_n_f32(x); }
INLINE vf vload(const float* p) { return vld1q_f32(p); }
INLINE void vstore(float* p, vf x) { vst1q_f32(p, x); }
INLINE vf vadd(vf a, vf b) { return vaddq_f32(a, b); }
INLINE vf vsub(vf a, vf b) { return vsubq_f32(a, b); }
INLINE vf vmul(vf a, vf b) { return vmulq_f32(a, b); }
INLINE vf vdiv(vf a, vf b) { return vdivq_f32(a, b); }
INLINE vf vfma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
INLINE void add_product(vf& sum, vf a, vf b) { sum = vfma(a, b, sum); }
INLINE vf vmax(vf a, vf b) { return vmaxq_f32(a, b); }
INLINE vf vmin(vf a, vf b) { return vminq_f32(a, b); }
INLINE vf vround(vf a) { return vrndnq_f32(a); }
INLINE vf vscale2(vf a, vf n) {
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), vshlq_n_s32(vcvtnq_s32_f32(n), 23)));
}
INLINE float vsum(vf a) { return vaddvq_f32(a); }
INLINE float vmaximum(vf a) { return vmaxvq_f32(a); }
INLINE void cpu_pause() { __asm__ volatile("yield"); }

// A weight word holds the bfloat16 values of two consecutive input channels; widening one is a shift or a mask.
INLINE vf vlow_half(const uint16_t* p) { return vreinterpretq_f32_u32(vshlq_n_u32(vld1q_u32((const uint32_t*)p), 16)); }
INLINE vf vhigh_half(const uint16_t* p) {
  return vreinterpretq_f32_u32(vandq_u32(vld1q_u32((const uint32_t*)p), vdupq_n_u32(0xffff0000u)));
}

/// Rounds to bfloat16, ties to even.
INLINE void narrow(uint16_t* p, vf x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  vst1_u16(p, vshrn_n_u32(vaddq_u32(vaddq_u32(bits, odd), vdupq_n_u32(0x7fff)), 16));
}

INLINE vf vload_half(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
INLINE vf vload_bf16(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
INLINE vf vload_int8(const int8_t* p) {
  int32_t word;
  memcpy(&word, p, sizeof word);
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(word))))));
}
