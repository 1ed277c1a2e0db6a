// The passes between matrix products: group normalization with all that follows it, and layer normalization.
// Two reads of the source and one write; sums are float32 over short runs and double beyond, cut the same way whatever
// the number of threads.

constexpr int kRunPixels = 32;     // pixels added up in float32
constexpr int kChunkPixels = 512;  // pixels of one statistics task

struct PrepareScratch {
  double* sums;       // [batch][chunks][groups][2]: sum and sum of squares
  float* factor;      // [batch][channels]
  float* offset;      // [batch][channels]
  float* run_sums;    // this thread's [2][channels]
};

INLINE int prepare_channels(const PrepareArgs& a) { return a.channels[0] + a.channels[1]; }
INLINE int prepare_chunks(const PrepareArgs& a) { return ceil_div(a.height * a.width, kChunkPixels); }

INLINE PrepareScratch prepare_layout(const PrepareArgs& a, Arena& arena, int threads) {
  PrepareScratch s = {};
  if (a.groups == 0) return s;
  const int channels = prepare_channels(a);
  s.sums = arena.take<double>((size_t)a.batch * prepare_chunks(a) * a.groups * 2);
  s.factor = arena.take<float>((size_t)a.batch * channels);
  s.offset = arena.take<float>((size_t)a.batch * channels);
  for (int i = 0; i < threads; ++i) s.run_sums = arena.take<float>(2 * (size_t)channels);
  return s;
}

static size_t prepare_scratch(const PrepareArgs* args, int nth) {
  Arena arena{nullptr, 0};
  prepare_layout(*args, arena, nth);
  return arena.used;
}

/// Adds `count` pixels of one source into per-channel sums and sums of squares.
static NOINLINE void add_run(const float* src, int channels, int count, float* sums, float* squares) {
  for (int c = 0; c < channels; c += kLanes) {
    const int lanes = min_of(kLanes, channels - c);
    vf sum = vzero(), square = vzero();
    for (int p = 0; p < count; ++p) {
      const vf x = vload_part(src + (int64_t)p * channels + c, lanes);
      sum = vadd(sum, x);
      square = vfma(x, x, square);
    }
    vstore_part(sums + c, sum, lanes);
    vstore_part(squares + c, square, lanes);
  }
}

static void chunk_sums(const PrepareArgs& a, int batch, int chunk, float* run, double* sums) {
  const int channels = prepare_channels(a), size = channels / a.groups, pixels = a.height * a.width;
  const int end = min_of(pixels, (chunk + 1) * kChunkPixels);
  for (int i = 0; i < 2 * a.groups; ++i) sums[i] = 0;
  for (int p = chunk * kChunkPixels; p < end; p += kRunPixels) {
    for (int s = 0, first = 0; s < 2; first += a.channels[s++]) {
      const float* src = a.src[s] + ((int64_t)batch * pixels + p) * a.channels[s];
      if (a.channels[s]) add_run(src, a.channels[s], min_of(kRunPixels, end - p), run + first, run + channels + first);
    }
    for (int g = 0; g < a.groups; ++g) {
      double sum = 0, square = 0;
      for (int c = g * size; c < (g + 1) * size; ++c) {
        sum += run[c];
        square += run[channels + c];
      }
      sums[2 * g] += sum;
      sums[2 * g + 1] += square;
    }
  }
}

/// The statistics pass.
static void sum_chunks(const PrepareArgs& a, const PrepareScratch& s, WorkContext* work, int nth) {
  const int chunks = prepare_chunks(a);
  for (int task; (task = take_task(work)) < a.batch * chunks;) {
    chunk_sums(a, task / chunks, task % chunks, s.run_sums, s.sums + (int64_t)task * a.groups * 2);
  }
  barrier(work, nth);
}

/// A group's sum, or with `square` = 1 its sum of squares, in one sample: of the chunks, after `start`.
INLINE double sum_of_chunks(const PrepareArgs& a, int batch, int group, int square, const PrepareScratch& s,
                            double start) {
  const int chunks = prepare_chunks(a);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    start += s.sums[(((int64_t)batch * chunks + chunk) * a.groups + group) * 2 + square];
  }
  return start;
}

static void group_sums(const PrepareArgs* args, WorkContext* work, int ith, int nth) {
  const PrepareArgs& a = *args;
  Arena arena{work->scratch, 0};
  const PrepareScratch s = prepare_layout(a, arena, ith + 1);
  sum_chunks(a, s, work, nth);
  for (int i; (i = take_task(work)) < 2 * a.groups;) {
    ((double*)a.dst)[i] = sum_of_chunks(a, 0, i / 2, i % 2, s, a.sums ? a.sums[i] : 0);
  }
  barrier(work, nth);
}

INLINE double square_root(double x) { return __builtin_sqrt(x); }

/// Folds mean, deviation, affine and modulation of one sample into one factor and one offset per channel.
static void fold_factors(const PrepareArgs& a, int batch, const PrepareScratch& s) {
  const int channels = prepare_channels(a), size = channels / a.groups;
  const double count = (a.sums ? (double)a.pixels : (double)a.height * a.width) * size;
  for (int g = 0; g < a.groups; ++g) {
    const double sum = a.sums ? a.sums[2 * g] : sum_of_chunks(a, batch, g, 0, s, 0);
    const double square = a.sums ? a.sums[2 * g + 1] : sum_of_chunks(a, batch, g, 1, s, 0);
    const double mean = sum / count, variance = square / count - mean * mean;
    const double rstd = 1 / square_root((variance > 0 ? variance : 0) + a.eps);
    for (int c = g * size; c < (g + 1) * size; ++c) {
      double factor = rstd * (a.gamma ? a.gamma[c] : 1), offset = (a.beta ? a.beta[c] : 0) - mean * factor;
      if (a.scale) {
        const int64_t row = batch * a.modulation_stride + c;
        factor *= 1.0 + a.scale[row];
        offset = offset * (1.0 + a.scale[row]) + a.shift[row];
      }
      s.factor[(int64_t)batch * channels + c] = (float)factor;
      s.offset[(int64_t)batch * channels + c] = (float)offset;
    }
  }
}

/// Where one source pixel's values and what is multiplied with them lie, for one of the two sources.
struct Pixel {
  const float *src, *factor, *offset, *spatial_scale, *spatial_shift;
};

INLINE Pixel pixel_at(const PrepareArgs& a, const PrepareScratch& s, int source, int batch, int y, int x) {
  const int channels = prepare_channels(a), first = source ? a.channels[0] : 0;
  Pixel p = {};
  p.src = a.src[source] + (((int64_t)batch * a.height + y) * a.width + x) * a.channels[source];
  if (a.groups) {
    p.factor = s.factor + (int64_t)batch * channels + first;
    p.offset = s.offset + (int64_t)batch * channels + first;
  }
  if (a.spatial_scale) {
    const int sy = y * a.spatial_height / a.height, sx = x * a.spatial_width / a.width;
    const int64_t low = (((int64_t)batch * a.spatial_height + sy) * a.spatial_width + sx) * channels + first;
    p.spatial_scale = a.spatial_scale + low;
    p.spatial_shift = a.spatial_shift + low;
  }
  return p;
}

template <bool Norm, bool Spatial, bool Silu>
INLINE vf prepare_vector(const Pixel& p, int c, int lanes) {
  vf x = vload_part(p.src + c, lanes);
  if (Norm) x = vfma(x, vload_part(p.factor + c, lanes), vload_part(p.offset + c, lanes));
  if (Spatial) x = vfma(x, vload_part(p.spatial_scale + c, lanes), vload_part(p.spatial_shift + c, lanes));
  if (Silu) x = vswish(x, 1.0f);
  return x;
}

/// One source's channels of `count` result pixels from `index` on, a pixel of the source each (or the mean of four).
template <bool Norm, bool Spatial, bool Silu>
static NOINLINE void prepare_pixel(const PrepareArgs& a, const PrepareScratch& s, int source, int batch, int y, int x,
                                   int64_t index, int copies, int64_t stride) {
  const int channels = a.channels[source];
  if (a.resample == Resample::avg_pool_2x2) {
    Pixel p[4];
    for (int i = 0; i < 4; ++i) p[i] = pixel_at(a, s, source, batch, 2 * y + i / 2, 2 * x + i % 2);
    for (int c = 0; c < channels; c += kLanes) {
      const int lanes = min_of(kLanes, channels - c);
      vf sum = prepare_vector<Norm, Spatial, Silu>(p[0], c, lanes);
      for (int i = 1; i < 4; ++i) sum = vadd(sum, prepare_vector<Norm, Spatial, Silu>(p[i], c, lanes));
      store_as(a.f32_dst, a.dst, index + c, vmul(sum, vset1(0.25f)), lanes);
    }
    return;
  }
  const Pixel p = pixel_at(a, s, source, batch, y, x);
  for (int c = 0; c < channels; c += kLanes) {
    const int lanes = min_of(kLanes, channels - c);
    const vf value = prepare_vector<Norm, Spatial, Silu>(p, c, lanes);
    for (int i = 0; i < copies; ++i) store_as(a.f32_dst, a.dst, index + i * stride + c, value, lanes);
  }
}

INLINE void clear(const PrepareArgs& a, int64_t index, int64_t count) {
  const size_t size = a.f32_dst ? sizeof(float) : sizeof(act_t);
  memset((char*)a.dst + index * size, 0, count * size);
}

INLINE int resampled(const PrepareArgs& a, int size) {
  return a.resample == Resample::avg_pool_2x2 ? size / 2 : a.resample == Resample::nearest_2x ? size * 2 : size;
}

/// One line of the result, border included.
template <bool Norm, bool Spatial, bool Silu>
static void prepare_line(const PrepareArgs& a, const PrepareScratch& s, int batch, int line) {
  const int channels = prepare_channels(a), stride = round_up(channels, 2);
  const int copies = a.resample == Resample::nearest_2x ? 2 : 1;
  const int height = resampled(a, a.height), width = resampled(a, a.width), y = line - a.pad;
  const int64_t start = ((int64_t)batch * (height + 2 * a.pad) + line) * (width + 2 * a.pad) * stride;
  if (y < 0 || y >= height) return clear(a, start, (int64_t)(width + 2 * a.pad) * stride);
  if (a.pad) {
    clear(a, start, stride);
    clear(a, start + (int64_t)(width + 1) * stride, stride);
  }
  for (int x = 0; x < width; x += copies) {
    const int64_t index = start + (int64_t)(x + a.pad) * stride;
    for (int source = 0; source < 2; ++source) {
      if (!a.channels[source]) continue;
      prepare_pixel<Norm, Spatial, Silu>(a, s, source, batch, y / copies, x / copies,
                                         index + (source ? a.channels[0] : 0), copies, stride);
    }
    for (int i = 0; i < copies && channels < stride; ++i) clear(a, index + i * stride + channels, 1);
  }
}

static void prepare(const PrepareArgs* args, WorkContext* work, int ith, int nth) {
  const PrepareArgs& a = *args;
  Arena arena{work->scratch, 0};
  const PrepareScratch s = prepare_layout(a, arena, ith + 1);
  if (a.groups) {
    if (!a.sums) sum_chunks(a, s, work, nth);
    for (int task; (task = take_task(work)) < a.batch;) fold_factors(a, task, s);
    barrier(work, nth);
  }
  using Line = void (*)(const PrepareArgs&, const PrepareScratch&, int, int);
  static const Line lines[8] = {prepare_line<false, false, false>, prepare_line<false, false, true>,
                                prepare_line<false, true, false>,  prepare_line<false, true, true>,
                                prepare_line<true, false, false>,  prepare_line<true, false, true>,
                                prepare_line<true, true, false>,   prepare_line<true, true, true>};
  const Line line = lines[(a.groups ? 4 : 0) + (a.spatial_scale ? 2 : 0) + (a.silu ? 1 : 0)];
  const int count = resampled(a, a.height) + 2 * a.pad;
  for (int task; (task = take_task(work)) < a.batch * count;) line(a, s, task / count, task % count);
  barrier(work, nth);
}

// ---- layer normalization ----

static void layer_norm_row(const LayerNormArgs& a, int row) {
  const float* x = a.src + (int64_t)row * a.features;
  const int64_t index = (int64_t)row * (a.f32_dst ? a.features : round_up(a.features, 2));
  float sum = 0, square = 0;
  for (int c = 0; c < a.features; c += kLanes) sum += vsum(vload_part(x + c, a.features - c));
  const float mean = sum / a.features;
  for (int c = 0; c < a.features; c += kLanes) {
    const int lanes = min_of(kLanes, a.features - c);
    float centered[kLanes] = {0};
    vstore_part(centered, vsub(vload_part(x + c, lanes), vset1(mean)), lanes);
    const vf d = vload(centered);
    square += vsum(vmul(d, d));
  }
  const float rstd = (float)(1 / square_root((double)square / a.features + a.eps));
  for (int c = 0; c < a.features; c += kLanes) {
    const int lanes = min_of(kLanes, a.features - c);
    vf y = vmul(vsub(vload_part(x + c, lanes), vset1(mean)), vset1(rstd));
    if (a.gamma) y = vmul(y, vload_part(a.gamma + c, lanes));
    if (a.beta) y = vadd(y, vload_part(a.beta + c, lanes));
    store_as(a.f32_dst, a.dst, index + c, y, lanes);
  }
  if (!a.f32_dst && a.features % 2) ((act_t*)a.dst)[index + a.features] = 0;
}

static size_t layer_norm_scratch(const LayerNormArgs*, int) { return 0; }

static void layer_norm(const LayerNormArgs* args, WorkContext* work, int, int nth) {
  constexpr int kRowsPerTask = 8;
  for (int task; (task = take_task(work)) * kRowsPerTask < args->rows;) {
    const int end = min_of(args->rows, (task + 1) * kRowsPerTask);
    for (int row = task * kRowsPerTask; row < end; ++row) layer_norm_row(*args, row);
  }
  barrier(work, nth);
}
