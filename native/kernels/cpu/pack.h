// Weight rows of any stored type to bfloat16 panels.

INLINE int panel_count(const WeightRows& w) { return ceil_div(w.out_features, kPanel); }
INLINE int tap_width(const WeightRows& w) { return (w.in_features + 1) & ~1; }  // input channels per tap, made even

/// 16-bit words of one panel.
INLINE int64_t panel_words(Algorithm algorithm, const WeightRows& w) {
  const int products = algorithm == Algorithm::direct ? w.taps : algorithm == Algorithm::winograd_f2 ? 16 : 36;
  return (int64_t)products * tap_width(w) * kPanel;
}

/// Float32 values of `count` columns of row `row` from `first` on; `buffer` holds them where they must be expanded.
INLINE const float* row_values(const WeightRows& w, int row, int64_t first, int64_t count, float* buffer) {
  const char* data = (const char*)w.data + row * w.row_bytes;
  if (!w.to_float) return (const float*)data + first;
  w.to_float(data + first / 256 * w.bytes_per_256, buffer, count);
  return buffer;
}

constexpr int kPackRows = kPanel < 16 ? kPanel : 16;  // rows expanded together: their words fill a cache line

/// A piece of one panel of a direct product: `count` columns of [taps][in_features] from `first` on, which is 0 or, for an
/// even number of channels, a multiple of 256.
static void pack_direct(const WeightRows& w, int panel, int64_t first, int64_t count, float* buffer, uint16_t* dst) {
  const int channels = w.in_features, width = tap_width(w);
  uint32_t* words = (uint32_t*)dst - (first / channels * width + first % channels) / 2 * kPanel;
  for (int n0 = 0; n0 < kPanel; n0 += kPackRows) {
    const float* rows[kPackRows];
    for (int n = 0; n < kPackRows; ++n) {
      const int row = panel * kPanel + n0 + n;
      rows[n] = row < w.out_features ? row_values(w, row, first, count, buffer + n * count) : nullptr;
    }
    for (int64_t k = 0; k < count;) {
      const int64_t tap = (first + k) / channels, channel = (first + k) % channels;
      const int64_t end = k + channels - channel < count ? k + channels - channel : count;  // of this tap
      uint32_t* out = words + (tap * width + channel) / 2 * kPanel + n0;
      for (; k < end; k += 2, out += kPanel) {
        for (int n = 0; n < kPackRows; ++n) {
          out[n] = rows[n] ? bf16_pair(rows[n][k], k + 1 < end ? rows[n][k + 1] : 0.0f) : 0;
        }
      }
      k = end;
    }
  }
}

// U = G g G^T for the points of winograd.h, where the scale factors of G's rows come from.
INLINE void weight_line_f2(vf a, vf b, vf c, vf* u) {
  const vf even_part = vmul(vadd(a, c), vset1(0.5f)), odd_part = vmul(b, vset1(0.5f));
  u[0] = a;
  u[1] = vadd(even_part, odd_part);
  u[2] = vsub(even_part, odd_part);
  u[3] = c;
}

INLINE void weight_line_f4(vf a, vf b, vf c, vf* u) {
  constexpr float kA = 0.625f, kB = 1.5f, kA2 = kA * kA, kB2 = kB * kB;
  constexpr float kNa = 1 / (2 * kA2 * (kA2 - kB2)), kNb = 1 / (2 * kB2 * (kB2 - kA2));
  u[0] = vmul(a, vset1(1 / (kA2 * kB2)));
  const vf even_a = vmul(vfma(c, vset1(kA2), a), vset1(kNa)), odd_a = vmul(b, vset1(kNa * kA));
  u[1] = vadd(even_a, odd_a);
  u[2] = vsub(even_a, odd_a);
  const vf even_b = vmul(vfma(c, vset1(kB2), a), vset1(kNb)), odd_b = vmul(b, vset1(kNb * kB));
  u[3] = vadd(even_b, odd_b);
  u[4] = vsub(even_b, odd_b);
  u[5] = c;
}

template <int N>
INLINE void weight_line(vf a, vf b, vf c, vf* u) {
  if constexpr (N == 4) {
    weight_line_f2(a, b, c, u);
  } else {
    weight_line_f4(a, b, c, u);
  }
}

/// The N x N transformed taps of kLanes input channels of one out channel, to [N * N][kLanes / 2] words `stride` apart.
template <int N>
static void pack_winograd_block(const float* taps, int channels, int count, uint32_t* dst, int64_t position_stride) {
  vf half[N][3];
  for (int x = 0; x < 3; ++x) {
    vf u[N];
    weight_line<N>(vload_part(taps + (0 + x) * channels, count), vload_part(taps + (3 + x) * channels, count),
                   vload_part(taps + (6 + x) * channels, count), u);
    for (int i = 0; i < N; ++i) half[i][x] = u[i];
  }
  for (int i = 0; i < N; ++i) {
    vf u[N];
    weight_line<N>(half[i][0], half[i][1], half[i][2], u);
    for (int j = 0; j < N; ++j) {
      float values[kLanes];
      vstore(values, u[j]);
      uint32_t* out = dst + (i * N + j) * position_stride;
      for (int k = 0; k < count; k += 2) out[k / 2 * kPanel] = bf16_pair(values[k], values[k + 1]);
    }
  }
}

template <int N>
static void pack_winograd(const WeightRows& w, int panel, float* buffer, uint16_t* dst) {
  const int channels = w.in_features;
  const int64_t length = 9 * (int64_t)channels, position_stride = (int64_t)tap_width(w) / 2 * kPanel;
  for (int n0 = 0; n0 < kPanel; n0 += kPackRows) {
    const float* rows[kPackRows];
    for (int n = 0; n < kPackRows; ++n) {
      const int row = panel * kPanel + n0 + n;
      float* expanded = buffer + n * length;
      if (row < w.out_features) {
        rows[n] = row_values(w, row, 0, length, expanded);
      } else {
        memset(expanded, 0, length * sizeof(float));
        rows[n] = expanded;
      }
    }
    for (int k = 0; k < channels; k += kLanes) {
      uint32_t* out = (uint32_t*)dst + (int64_t)k / 2 * kPanel + n0;
      for (int n = 0; n < kPackRows; ++n) {
        pack_winograd_block<N>(rows[n] + k, channels, min_of(kLanes, channels - k), out + n, position_stride);
      }
    }
  }
}

INLINE int64_t row_length(const WeightRows& w) { return (int64_t)w.taps * w.in_features; }

/// One whole panel. `buffer` holds kPackRows rows.
static void pack_panel(Algorithm algorithm, const WeightRows& w, int panel, float* buffer, uint16_t* dst) {
  switch (algorithm) {
    case Algorithm::direct: return pack_direct(w, panel, 0, row_length(w), buffer, dst);
    case Algorithm::winograd_f2: return pack_winograd<4>(w, panel, buffer, dst);
    case Algorithm::winograd_f4: return pack_winograd<6>(w, panel, buffer, dst);
  }
}

static size_t packed_size(Algorithm algorithm, const WeightRows* w) {
  return (size_t)panel_count(*w) * panel_words(algorithm, *w) * sizeof(uint16_t);
}

INLINE size_t pack_buffer_size(const WeightRows& w) { return (size_t)kPackRows * row_length(w); }

static size_t pack_scratch(const PackArgs* args, int nth) {
  Arena arena{nullptr, 0};
  for (int i = 0; i < nth; ++i) arena.take<float>(pack_buffer_size(args->rows));
  return arena.used;
}

static void pack(const PackArgs* args, WorkContext* work, int ith, int nth) {
  Arena arena{work->scratch, 0};
  float* buffer = nullptr;
  for (int i = 0; i <= ith; ++i) buffer = arena.take<float>(pack_buffer_size(args->rows));
  const int64_t words = panel_words(args->algorithm, args->rows);
  for (int p; (p = take_task(work)) < panel_count(args->rows);) {
    pack_panel(args->algorithm, args->rows, p, buffer, (uint16_t*)args->dst + p * words);
  }
  barrier(work, nth);
}
