// Weight rows of any stored type to panels of weight_t.

INLINE int panel_count(const WeightRows& w) { return ceil_div(w.out_features, kPanel); }
INLINE int tap_width(const WeightRows& w) { return round_up(w.in_features, 2); }  // input channels per tap, made even

INLINE int64_t row_length(const WeightRows& w) { return (int64_t)w.taps * w.in_features; }

/// Weights of one panel.
INLINE int64_t panel_size(Algorithm algorithm, const WeightRows& w) {
  const int products = algorithm == Algorithm::direct ? w.taps : algorithm == Algorithm::winograd_f2 ? 16 : 36;
  return (int64_t)products * tap_width(w) * kPanel;
}

/// Float32 values of `count` columns of row `row` from `first` on; `buffer` holds them where they must be expanded.
INLINE const float* row_values(const WeightRows& w, int row, int64_t first, int64_t count, float* buffer) {
  const char* data = (const char*)w.data + row * w.row_bytes;
  if (w.type == StoredType::f32) return (const float*)data + first;
  const int64_t bytes_per_256 = kBytesPer256[(int)w.type];
  data += first / 256 * bytes_per_256;
  kExpanders[(int)w.type](data, buffer, count);
  if (count < row_length(w)) {  // a piece: the next one is needed after 63 other rows, too far apart to be foreseen
    const int64_t bytes = count * bytes_per_256 / 256;
    for (int64_t b = bytes; b < 2 * bytes; b += 64) __builtin_prefetch(data + b, 0, 2);
  }
  return buffer;
}

// Panels are made in blocks of kPackRows out channels (their words fill whole cache lines) by kPackWords words of 32
// bits: rows are narrowed to words, then the block is turned, because a panel has one word of all out channels side by
// side.
constexpr int kPackRows = kPanel < 16 ? kPanel : 16;
constexpr int kPackWords = 16;
constexpr int kWordValues = 4 / sizeof(weight_t);
constexpr int kBlockValues = kPackWords * kWordValues;
constexpr int kPackColumns = 256;  // values of a row that are expanded at a time
using PackBlock = uint32_t[kPackRows][kPackWords];

/// The first `count` of up to kBlockValues values as words, zero beyond.
INLINE void narrow_row(const float* values, int count, uint32_t* words) {
  for (int i = 0; i < kBlockValues; i += kLanes) {
    narrow((weight_t*)words + i, i < count ? vload_part(values + i, count - i) : vzero());
  }
}

/// Word k of row n to dst[k * kPanel + n].
INLINE void turn_block(const PackBlock& block, int words, uint32_t* dst) {
#ifdef HAS_TRANSPOSE
  transpose_16x16(&block[0][0], words, dst, kPanel);
#else
  for (int k = 0; k < words; ++k) {
    for (int n = 0; n < kPackRows; ++n) dst[(int64_t)k * kPanel + n] = block[n][k];
  }
#endif
}

#ifdef HAS_Q8_WORDS
/// pack_direct of q8_0 where taps are whole blocks: the type that most files have, and the widest to read, so that half of
/// the time would go to writing and reading float32 values.
static void pack_direct_q8_0(const WeightRows& w, int panel, int64_t first, int64_t count, weight_t* dst) {
  constexpr int kBlock = 34, kAhead = 8 * kBlock;  // bytes
  static_assert(kBlockValues == 32, "one block of q8_0");
  for (int n0 = 0; n0 < kPanel; n0 += kPackRows) {
    const int valid = max_of(0, min_of(kPackRows, w.out_features - panel * kPanel - n0));
    const unsigned char* rows = (const unsigned char*)w.data + (panel * kPanel + n0) * w.row_bytes + first / 32 * kBlock;
    uint32_t* out = (uint32_t*)dst + n0;
    PackBlock block = {};
    for (int64_t k = 0; k < count; k += 32, rows += kBlock, out += kPackWords * kPanel) {
      for (int n = 0; n < valid; ++n) {
        __builtin_prefetch(rows + n * w.row_bytes + kAhead);
        q8_0_words(rows + n * w.row_bytes, block[n]);
      }
      turn_block(block, kPackWords, out);
    }
  }
}
#endif

/// A piece of one panel of a direct product: `count` columns of [taps][in_features] from `first` on, which is 0 or,
/// for an even number of channels, a multiple of 256.
static void pack_direct(const WeightRows& w, int panel, int64_t first, int64_t count, float* buffer, weight_t* dst) {
  const int channels = w.in_features, width = tap_width(w);
#ifdef HAS_Q8_WORDS
  if (w.type == StoredType::q8_0 && channels % 32 == 0) return pack_direct_q8_0(w, panel, first, count, dst);
#endif
  // The values of 16 rows should stay in the L1 cache until they are turned.
  const int64_t part = channels % 2 == 0 ? kPackColumns : count;
  uint32_t* words = (uint32_t*)dst - (first / channels * width + first % channels) / kWordValues * kPanel;
  for (int n0 = 0; n0 < kPanel; n0 += kPackRows) {
    const int valid = min_of(kPackRows, w.out_features - panel * kPanel - n0);
    PackBlock block = {};
    for (int64_t begin = first; begin < first + count; begin += part) {
      const int64_t size = first + count - begin < part ? first + count - begin : part;
      const float* rows[kPackRows];
      for (int n = 0; n < valid; ++n) rows[n] = row_values(w, panel * kPanel + n0 + n, begin, size, buffer + n * size);
      for (int64_t k = 0; k < size;) {
        const int64_t tap = (begin + k) / channels, channel = (begin + k) % channels;
        const int64_t left = channels - channel < size - k ? channels - channel : size - k;  // of this tap
        const int step = left < kBlockValues ? (int)left : kBlockValues;
        for (int n = 0; n < valid; ++n) narrow_row(rows[n] + k, step, block[n]);
        // Up to the end of a pair: zeros behind an odd number of channels.
        uint32_t* out = words + (tap * width + channel) / kWordValues * kPanel + n0;
        turn_block(block, ceil_div(round_up(step, 2), kWordValues), out);
        k += step;
      }
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

/// The N x N transformed taps of kBlockValues input channels of one out channel, as row `n` of each product's block.
template <int N>
INLINE void transform_taps(const float* taps, int channels, int count, PackBlock* blocks, int n) {
  for (int c = 0; c < kBlockValues; c += kLanes) {
    if (c >= count) continue;  // those words are not stored
    const int lanes = min_of(kLanes, count - c);
    vf half[3][N];
    for (int x = 0; x < 3; ++x) {
      const float* column = taps + x * channels + c;
      weight_line<N>(vload_part(column, lanes), vload_part(column + 3 * channels, lanes),
                     vload_part(column + 6 * channels, lanes), half[x]);
    }
    for (int i = 0; i < N; ++i) {
      vf u[N];
      weight_line<N>(half[0][i], half[1][i], half[2][i], u);
      for (int j = 0; j < N; ++j) narrow((weight_t*)blocks[i * N + j][n] + c, u[j]);
    }
  }
}

template <int N>
static void pack_winograd(const WeightRows& w, int panel, float* buffer, weight_t* dst) {
  const int channels = w.in_features;
  const int64_t length = 9 * (int64_t)channels, product_words = (int64_t)tap_width(w) / kWordValues * kPanel;
  PackBlock blocks[N * N] = {};
  for (int n0 = 0; n0 < kPanel; n0 += kPackRows) {
    const int valid = max_of(0, min_of(kPackRows, w.out_features - panel * kPanel - n0));
    if (valid < kPackRows) memset(blocks, 0, sizeof blocks);
    const float* rows[kPackRows];
    for (int n = 0; n < valid; ++n) rows[n] = row_values(w, panel * kPanel + n0 + n, 0, length, buffer + n * length);
    for (int k = 0; k < channels; k += kBlockValues) {
      const int count = min_of(kBlockValues, channels - k);
      for (int n = 0; n < valid; ++n) transform_taps<N>(rows[n] + k, channels, count, blocks, n);
      uint32_t* out = (uint32_t*)dst + (int64_t)k / kWordValues * kPanel + n0;
      for (int i = 0; i < N * N; ++i) turn_block(blocks[i], ceil_div(count, kWordValues), out + i * product_words);
    }
  }
}

/// One whole panel. `buffer` holds kPackRows rows.
static void pack_panel(Algorithm algorithm, const WeightRows& w, int panel, float* buffer, weight_t* dst) {
  switch (algorithm) {
    case Algorithm::direct: return pack_direct(w, panel, 0, row_length(w), buffer, dst);
    case Algorithm::winograd_f2: return pack_winograd<4>(w, panel, buffer, dst);
    case Algorithm::winograd_f4: return pack_winograd<6>(w, panel, buffer, dst);
  }
}

static size_t packed_size(Algorithm algorithm, const WeightRows* w) {
  return (size_t)panel_count(*w) * panel_size(algorithm, *w) * sizeof(weight_t);
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
  const int64_t size = panel_size(args->algorithm, args->rows);
  for (int p; (p = take_task(work)) < panel_count(args->rows);) {
    pack_panel(args->algorithm, args->rows, p, buffer, (weight_t*)args->dst + p * size);
  }
  barrier(work, nth);
}
