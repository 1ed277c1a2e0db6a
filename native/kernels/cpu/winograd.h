// 3x3 convolution with stride 1 by Winograd's minimal filtering F(m x m, 3x3), m = 2 or 4 (Lavin and Gray 2015,
// "Fast Algorithms for Convolutional Neural Networks"): Y = A^T [(G g G^T) . (B^T d B)] A, n = m + 2.
//
// F(4x4) uses the points 0, +-5/8, +-3/2, inf instead of the textbook's 0, +-1, +-2, inf: they amplify the rounding of
// bfloat16 two times less, which is what makes F(4x4) as exact as a plain bfloat16 network. With a = 5/8, b = 3/2 and
// M(x) = x (x^2 - a^2)(x^2 - b^2), row j of B^T holds the coefficients of M(x) / (x - p_j) (the last row those of M),
// column j of A^T the powers of p_j, and row j of G those powers times 1 / M'(p_j).
//
// Tiles are handled in one of two ways. Where the packed weights fit in the last-level cache, each thread takes blocks
// of tiles, transforms them and runs them through all panels of out channels. Else all threads transform a large group
// of tiles, meet, and then each takes panels of it, so that the weights are read from memory once per group.

template <int M>
struct Winograd {
  static constexpr int kSide = M + 2, kProducts = kSide * kSide;

  const ConvArgs* args;
  int channels, out_channels, tiles_y, tiles_x, tiles;
  bool shared;                 // groups are transformed by all threads together
  int group, block;            // tiles transformed together, and tiles of one product
  int64_t position_stride;     // elements between two positions of the transformed group
  int64_t tile_stride;         // floats between two positions of a task's sums
  act_t* transformed;          // [kProducts][group][channels], if shared
  act_t* zeros;                // [channels]: what lies beyond the border of a ragged tile
};

constexpr int64_t kCachedWeights = 12 << 20;       // packed weights that can stay in a common L3 cache
constexpr int64_t kGroupBytes = 12 << 20;          // of transformed input, likewise
constexpr int64_t kExpandedGroupBytes = 96 << 20;  // when weights are expanded per group: as seldom as can be afforded
constexpr int kBlockTiles = 48;                    // 36 x 48 x 64 sums are 442 KB: half of a 1 MB L2 cache

struct WinogradScratch {
  act_t* transformed;  // this thread's, or the shared one
  float* sums;         // [kProducts][block][kPanel]
  const act_t** rows;
  float* buffer;
  weight_t* panel;
};

template <int M>
INLINE WinogradScratch winograd_scratch(Arena& arena, const Winograd<M>& g) {
  WinogradScratch scratch = {};
  scratch.transformed = g.shared ? g.transformed : arena.take<act_t>(g.position_stride * g.kProducts);
  scratch.sums = arena.take<float>(g.tile_stride * g.kProducts);
  scratch.rows = arena.take<const act_t*>(g.block);
  if (!g.args->weights.packed) {
    const ProductWeights& w = g.args->weights;
    scratch.buffer = arena.take<float>(pack_buffer_size(w.rows));
    scratch.panel = arena.take<weight_t>(panel_size(w.algorithm, w.rows));
  }
  return scratch;
}

template <int M>
INLINE Winograd<M> winograd_layout(const ConvArgs* args, Arena& arena) {
  Winograd<M> g = {};
  g.args = args;
  g.channels = tap_width(args->weights.rows);
  g.out_channels = args->weights.rows.out_features;
  g.tiles_y = ceil_div(args->height, M);
  g.tiles_x = ceil_div(args->width, M);
  g.tiles = args->batch * g.tiles_y * g.tiles_x;
  const int64_t bytes = args->weights.packed ? kGroupBytes : kExpandedGroupBytes;
  const int64_t fit = bytes / ((int64_t)g.kProducts * g.channels * sizeof(act_t));
  const int limit = max_of((int)(fit < 100000 ? fit : 100000) / kBlockTiles, 1) * kBlockTiles;
  g.shared = !args->weights.packed ||
             (int64_t)packed_size(args->weights.algorithm, &args->weights.rows) > kCachedWeights;
  g.block = min_of(kBlockTiles, g.tiles);
  g.group = g.shared ? min_of(round_up(ceil_div(g.tiles, ceil_div(g.tiles, limit)), kBlockTiles), g.tiles) : g.block;
  // One cache line more than the data, or positions a power of two apart would compete for the same cache sets.
  g.position_stride = (int64_t)g.group * g.channels + 64 / sizeof(act_t);
  g.tile_stride = (int64_t)g.block * kPanel + 16;
  if (g.shared) g.transformed = arena.take<act_t>(g.position_stride * g.kProducts);
  g.zeros = arena.take<act_t>(g.channels + kLanes);
  return g;
}

// ---- one line of each transform ----

INLINE void input_line(const vf (&d)[4], vf (&v)[4]) {
  v[0] = vsub(d[0], d[2]);
  v[1] = vadd(d[1], d[2]);
  v[2] = vsub(d[2], d[1]);
  v[3] = vsub(d[1], d[3]);
}

INLINE void output_line(const vf (&m)[4], vf (&y)[2]) {
  y[0] = vadd(vadd(m[0], m[1]), m[2]);
  y[1] = vsub(vsub(m[1], m[2]), m[3]);
}

constexpr float kPointA = 0.625f, kPointB = 1.5f;
constexpr float kA2 = kPointA * kPointA, kB2 = kPointB * kPointB;

INLINE void input_line(const vf (&d)[6], vf (&v)[6]) {
  v[0] = vfma(d[0], vset1(kA2 * kB2), vfma(d[2], vset1(-(kA2 + kB2)), d[4]));
  const vf even_a = vfma(d[2], vset1(-kB2), d[4]), odd_a = vmul(vfma(d[1], vset1(-kB2), d[3]), vset1(kPointA));
  v[1] = vadd(even_a, odd_a);
  v[2] = vsub(even_a, odd_a);
  const vf even_b = vfma(d[2], vset1(-kA2), d[4]), odd_b = vmul(vfma(d[1], vset1(-kA2), d[3]), vset1(kPointB));
  v[3] = vadd(even_b, odd_b);
  v[4] = vsub(even_b, odd_b);
  v[5] = vfma(d[1], vset1(kA2 * kB2), vfma(d[3], vset1(-(kA2 + kB2)), d[5]));
}

INLINE void output_line(const vf (&m)[6], vf (&y)[4]) {
  const vf even_a = vadd(m[1], m[2]), odd_a = vsub(m[1], m[2]), even_b = vadd(m[3], m[4]), odd_b = vsub(m[3], m[4]);
  y[0] = vadd(m[0], vadd(even_a, even_b));
  y[1] = vfma(odd_b, vset1(kPointB), vmul(odd_a, vset1(kPointA)));
  y[2] = vfma(even_b, vset1(kB2), vmul(even_a, vset1(kA2)));
  y[3] = vfma(odd_b, vset1(kB2 * kPointB), vfma(odd_a, vset1(kA2 * kPointA), m[5]));
}

/// B^T d B of one tile, all channels, to one row of a transformed group.
template <int M>
static NOINLINE void transform_tile(const Winograd<M>& g, int tile, act_t* out) {
  constexpr int N = Winograd<M>::kSide;
  const ConvArgs& a = *g.args;
  const int tx = tile % g.tiles_x, ty = tile / g.tiles_x % g.tiles_y, b = tile / g.tiles_x / g.tiles_y;
  const act_t* d[N * N];
  for (int y = 0; y < N; ++y) {
    for (int x = 0; x < N; ++x) {
      const int row = ty * M + y, column = tx * M + x;
      const bool inside = row < a.src_height && column < a.src_width;
      const int64_t pixel = ((int64_t)b * a.src_height + row) * a.src_width + column;
      d[y * N + x] = inside ? (const act_t*)a.src + pixel * g.channels : g.zeros;
    }
  }
  for (int c = 0; c < g.channels; c += kLanes) {
    vf half[N][N];
    for (int x = 0; x < N; ++x) {
      vf column[N], v[N];
      UNROLL for (int y = 0; y < N; ++y) column[y] = aload(d[y * N + x] + c);
      input_line(column, v);
      UNROLL for (int y = 0; y < N; ++y) half[y][x] = v[y];
    }
    for (int y = 0; y < N; ++y) {
      vf v[N];
      input_line(half[y], v);
      UNROLL for (int x = 0; x < N; ++x) astore(out + (y * N + x) * g.position_stride + c, v[x]);
    }
  }
}

/// A^T m A of one tile and panel, with bias and residual, to the result.
template <int M>
static NOINLINE void untransform_tile(const Winograd<M>& g, int tile, int first, int columns, const float* sums) {
  constexpr int N = Winograd<M>::kSide;
  const ConvArgs& a = *g.args;
  const int tx = tile % g.tiles_x, ty = tile / g.tiles_x % g.tiles_y, b = tile / g.tiles_x / g.tiles_y;
  const int height = min_of(M, a.height - ty * M), width = min_of(M, a.width - tx * M);
  const int64_t corner = (((int64_t)b * a.height + ty * M) * a.width + tx * M) * g.out_channels + first;
  for (int c = 0; c < columns; c += kLanes) {
    const int lanes = min_of(kLanes, columns - c);
    const vf bias = a.bias ? vload_part(a.bias + first + c, lanes) : vzero();
    vf half[M][N];
    for (int x = 0; x < N; ++x) {
      vf column[N], v[M];
      UNROLL for (int y = 0; y < N; ++y) column[y] = vload(sums + (y * N + x) * g.tile_stride + c);
      output_line(column, v);
      UNROLL for (int y = 0; y < M; ++y) half[y][x] = v[y];
    }
    for (int y = 0; y < height; ++y) {
      vf v[M];
      output_line(half[y], v);
      const int64_t line = corner + (int64_t)y * a.width * g.out_channels + c;
      for (int x = 0; x < width; ++x) {
        const int64_t index = line + (int64_t)x * g.out_channels;
        vf result = vadd(v[x], bias);
        if (a.residual) result = vadd(result, vload_part(a.residual + index, lanes));
        vstore_part(a.dst + index, result, lanes);
      }
    }
  }
}

/// One block of a group's tiles times one panel of out channels.
template <int M>
static void winograd_block(const Winograd<M>& g, int group_start, int slot, int count, int panel, const weight_t* words,
                           const WinogradScratch& scratch) {
  const int first = panel * kPanel, columns = min_of(kPanel, g.out_channels - first);
  for (int t = 0; t < count; ++t) scratch.rows[t] = scratch.transformed + (int64_t)(slot + t) * g.channels;
  for (int i = 0; i < g.kProducts; ++i) {
    multiply(scratch.rows, count, i * g.position_stride, words, g.channels / 2, scratch.sums + i * g.tile_stride, false,
             columns, g.shared);
    words += (int64_t)g.channels * kPanel;
  }
  for (int t = 0; t < count; ++t) {
    untransform_tile(g, group_start + slot + t, first, columns, scratch.sums + (int64_t)t * kPanel);
  }
}

INLINE const weight_t* packed_panel(const ProductWeights& w, int panel) {
  return (const weight_t*)w.packed + panel * panel_size(w.algorithm, w.rows);
}

template <int M>
static void winograd_private(const Winograd<M>& g, const WinogradScratch& scratch, WorkContext* work, int nth) {
  const ProductWeights& w = g.args->weights;
  const int panels = panel_count(w.rows);
  for (int task; (task = take_task(work)) * g.block < g.tiles;) {
    const int start = task * g.block, size = min_of(g.block, g.tiles - start);
    for (int t = 0; t < size; ++t) transform_tile(g, start + t, scratch.transformed + (int64_t)t * g.channels);
    for (int panel = 0; panel < panels; ++panel) {
      winograd_block(g, start, 0, size, panel, packed_panel(w, panel), scratch);
    }
  }
  barrier(work, nth);
}

template <int M>
static void winograd_group(const Winograd<M>& g, int start, const WinogradScratch& scratch, WorkContext* work,
                           int nth) {
  const ProductWeights& w = g.args->weights;
  const int size = min_of(g.group, g.tiles - start), panels = panel_count(w.rows);
  for (int slot; (slot = take_task(work)) < size;) {
    transform_tile(g, start + slot, g.transformed + (int64_t)slot * g.channels);
  }
  barrier(work, nth);
  if (w.packed) {
    const int blocks = ceil_div(size, g.block);
    for (int task; (task = take_task(work)) < panels * blocks;) {
      const int panel = task / blocks, slot = task % blocks * g.block;
      winograd_block(g, start, slot, min_of(g.block, size - slot), panel, packed_panel(w, panel), scratch);
    }
  } else {
    for (int panel; (panel = take_task(work)) < panels;) {
      pack_panel(w.algorithm, w.rows, panel, scratch.buffer, scratch.panel);
      for (int slot = 0; slot < size; slot += g.block) {
        winograd_block(g, start, slot, min_of(g.block, size - slot), panel, scratch.panel, scratch);
      }
    }
  }
  barrier(work, nth);
}

template <int M>
static void winograd(const ConvArgs* args, WorkContext* work, int ith, int nth) {
  Arena arena{work->scratch, 0};
  const Winograd<M> g = winograd_layout<M>(args, arena);
  WinogradScratch scratch = {};
  for (int i = 0; i <= ith; ++i) scratch = winograd_scratch(arena, g);
  if (ith == 0) memset(g.zeros, 0, (g.channels + kLanes) * sizeof(act_t));
  barrier(work, nth);
  const MatrixUnit unit;
  if (!g.shared) return winograd_private(g, scratch, work, nth);
  for (int start = 0; start < g.tiles; start += g.group) winograd_group(g, start, scratch, work, nth);
}

template <int M>
static size_t winograd_scratch_size(const ConvArgs* args, int nth) {
  Arena arena{nullptr, 0};
  const Winograd<M> g = winograd_layout<M>(args, arena);
  for (int i = 0; i < nth; ++i) winograd_scratch(arena, g);
  return arena.used;
}

static size_t conv_scratch(const ConvArgs* args, int nth) {
  switch (args->weights.algorithm) {
    case Algorithm::winograd_f2: return winograd_scratch_size<2>(args, nth);
    case Algorithm::winograd_f4: return winograd_scratch_size<4>(args, nth);
    case Algorithm::direct: break;
  }
  return product_scratch_size(conv_product(args), nth);
}

static void conv(const ConvArgs* args, WorkContext* work, int ith, int nth) {
  switch (args->weights.algorithm) {
    case Algorithm::winograd_f2: return winograd<2>(args, work, ith, nth);
    case Algorithm::winograd_f4: return winograd<4>(args, work, ith, nth);
    case Algorithm::direct: return product(conv_product(args), work, ith, nth);
  }
}
