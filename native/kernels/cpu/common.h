// What every instruction set shares: partial vectors, activation functions, work sharing. Each unit includes it once,
// inside its anonymous namespace: an inline function with linkage could be merged with the copy of another unit and run
// instructions that the machine lacks. For the same reason there is no standard library here.

INLINE int min_of(int a, int b) { return a < b ? a : b; }
INLINE int max_of(int a, int b) { return a > b ? a : b; }
INLINE int ceil_div(int a, int b) { return (a + b - 1) / b; }
INLINE int round_up(int a, int b) { return ceil_div(a, b) * b; }

// ---- the first `count` lanes ----

INLINE vf vload_part(const float* p, int count) {
  if (count >= kLanes) return vload(p);
  float lanes[kLanes] = {0};
  for (int i = 0; i < count; ++i) lanes[i] = p[i];
  return vload(lanes);
}

INLINE void vstore_part(float* p, vf x, int count) {
  if (count >= kLanes) return vstore(p, x);
  float lanes[kLanes];
  vstore(lanes, x);
  for (int i = 0; i < count; ++i) p[i] = lanes[i];
}

INLINE void astore_part(act_t* p, vf x, int count) {
  if (count >= kLanes) return astore(p, x);
  act_t lanes[kLanes];
  astore(lanes, x);
  for (int i = 0; i < count; ++i) p[i] = lanes[i];
}

/// Writes `count` lanes at element `index` of a float32 or act buffer.
INLINE void store_as(bool f32, void* dst, int64_t index, vf x, int count) {
  if (f32) {
    vstore_part((float*)dst + index, x, count);
  } else {
    astore_part((act_t*)dst + index, x, count);
  }
}

// ---- functions ----

/// 2^x by a Taylor polynomial on [-0.5, 0.5]: relative error under 2e-7.
INLINE vf vexp2(vf x) {
  x = vmin(vmax(x, vset1(-126.0f)), vset1(126.0f));
  const vf n = vround(x), f = vsub(x, n);
  vf p = vset1(1.540353e-4f);
  p = vfma(p, f, vset1(1.3333558e-3f));
  p = vfma(p, f, vset1(9.6181291e-3f));
  p = vfma(p, f, vset1(5.5504109e-2f));
  p = vfma(p, f, vset1(0.24022651f));
  p = vfma(p, f, vset1(0.69314718f));
  return vscale2(vfma(p, f, vset1(1.0f)), n);
}

constexpr float kLog2e = 1.44269504f;

/// x * sigmoid(slope * x)
INLINE vf vswish(vf x, float slope) {
  const vf e = vexp2(vmul(x, vset1(-slope * kLog2e)));
  return vdiv(x, vadd(vset1(1.0f), e));
}

/// x * Phi(x), with erf by Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7).
INLINE vf vgelu(vf x) {
  const vf z = vmul(vmax(x, vsub(vzero(), x)), vset1(0.70710678f));
  const vf t = vdiv(vset1(1.0f), vfma(z, vset1(0.3275911f), vset1(1.0f)));
  vf p = vset1(1.061405429f);
  p = vfma(p, t, vset1(-1.453152027f));
  p = vfma(p, t, vset1(1.421413741f));
  p = vfma(p, t, vset1(-0.284496736f));
  p = vfma(p, t, vset1(0.254829592f));
  const vf tail = vmul(vmul(p, t), vexp2(vmul(vmul(z, z), vset1(-kLog2e))));  // 1 - erf(z)
  // Phi(x) = 1 - tail / 2 for x >= 0 and tail / 2 below: x * Phi(x) = max(x, 0) - |x| * tail / 2.
  return vsub(vmax(x, vzero()), vmul(vmul(z, vset1(0.70710678f)), tail));
}

INLINE vf activate(vf x, Activation activation) {
  switch (activation) {
    case Activation::silu: return vswish(x, 1.0f);
    case Activation::quick_gelu: return vswish(x, 1.702f);
    case Activation::gelu: return vgelu(x);
    case Activation::none: break;
  }
  return x;
}

// ---- work sharing ----

/// The next task of the current phase; the counter is shared so that a thread whose core is busy elsewhere takes fewer.
INLINE int take_task(WorkContext* work) { return __atomic_fetch_add(&work->next_task, 1, __ATOMIC_RELAXED); }

/// Looks at a barrier before a thread gives its core away: a few microseconds, some ten times what giving it away
/// costs. Threads often share cores with other work, and whoever spins may be what keeps the last thread from
/// arriving: with more to run than cores, 20,000 looks make a barrier a hundred times slower, and with cores to spare
/// yielding returns at once.
constexpr int kSpins = 100;

/// All threads meet; the last one to arrive starts the task counter anew. Every phase and every kernel ends with this.
static void barrier(WorkContext* work, int nth) {
  const unsigned generation = __atomic_load_n(&work->generation, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&work->arrived, 1, __ATOMIC_ACQ_REL) == nth) {
    __atomic_store_n(&work->arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&work->next_task, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&work->generation, generation + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int spins = 0; __atomic_load_n(&work->generation, __ATOMIC_ACQUIRE) == generation;) {
    if (spins < kSpins) {
      cpu_pause();
      ++spins;
    } else {
      kernel_yield();
    }
  }
}

/// Hands out 64-byte aligned pieces of the scratch memory; with a null base it only adds up their size.
struct Arena {
  unsigned char* base;
  size_t used;

  template <typename T>
  INLINE_MEMBER T* take(size_t count) {
    T* piece = (T*)((uintptr_t)base + used);  // no pointer may be made of null and an offset
    used += (count * sizeof(T) + 63) & ~(size_t)63;
    return piece;
  }
};
