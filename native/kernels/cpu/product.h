// Convolution by its definition, and linear layers as its 1x1 case: every pixel (token) is a row of a matrix product
// whose inner dimension runs over taps and input channels. No im2col: a tap is an offset into the source.

struct Product {
  const act_t* src;
  int64_t pixel_stride;  // elements
  int src_height, src_width, height, width, rows;
  int kernel, stride, origin;
  const ProductWeights* weights;
  const float* bias;
  Activation activation;
  const float* residual;
  int64_t residual_stride;
  bool f32_dst;
  void* dst;
  int64_t dst_stride;
};

#ifdef MATRIX_UNIT
// Products wait for memory unless all that they read lies in the L2 cache (2 MB): a block of rows with all its taps stays
// there while the panels pass by, a group of them at a time. Where that would expand weights more than once, all of them
// are expanded before.
constexpr int kExpandedRows = 1024;   // more: weights are expanded once, into memory
constexpr int kFewestRows = 256, kMostRows = 512;
constexpr int64_t kNearBytes = 1 << 20;  // of a block's rows
constexpr int kGroupPanels = 4;
constexpr int kPiece = 1024;
constexpr int64_t kFarBytes = 1 << 20;
#else
constexpr int kPackedRows = 96;     // rows of one task: their sums, 24 KB, stay in the L2 cache beside the panel
constexpr int kExpandedRows = 1020;  // more when a panel must be expanded first, to do that less often
constexpr int kPiece = 512;          // weights of a row that are expanded at a time
constexpr int64_t kFarBytes = 8 << 20;  // a source larger than this does not stay in the near caches
#endif

/// How a product is cut into tasks: blocks of rows times groups of panels.
struct Blocking {
  int rows, panels;
  bool expands_first;  // all weights, before the tasks
};

/// What one thread needs.
struct ProductScratch {
  float* tile;  // [panels][rows][kPanel]
  const act_t** rows;
  float* buffer;
  weight_t* piece;  // [panels][kPiece or all][kPanel]
  weight_t* expanded;  // of all threads: every panel
};

/// Whether weights may be expanded piece by piece: where a piece ends within a tap, the inner dimension must end evenly.
INLINE bool by_pieces(const WeightRows& w) { return w.in_features % kInnerStep == 0; }

INLINE int64_t piece_length(const WeightRows& w) { return by_pieces(w) ? kPiece : (int64_t)w.taps * tap_width(w); }

/// `count` in blocks of at most `limit`, of nearly the same size, which is a multiple of `unit`.
INLINE int even_blocks(int count, int limit, int unit) {
  return min_of(round_up(ceil_div(count, ceil_div(count, limit)), unit), count);
}

INLINE Blocking product_blocking(const Product& p, int nth) {
  const bool packed = p.weights->packed != nullptr;
#ifdef MATRIX_UNIT
  Blocking b = {};
  b.expands_first = !packed && p.rows > kExpandedRows;
  const int64_t fit = kNearBytes / (p.pixel_stride * (int64_t)sizeof(act_t));
  const int limit = fit < kFewestRows ? kFewestRows : fit > kMostRows ? kMostRows : (int)fit;
  b.rows = even_blocks(p.rows, packed || b.expands_first ? limit : kExpandedRows, 2 * kTileRows);
  const int panels = panel_count(p.weights->rows), tasks = 4 * nth;  // at least, if there are so many panels
  b.panels = max_of(1, min_of(kGroupPanels, panels * ceil_div(p.rows, b.rows) / tasks));
  return b;
#else
  (void)nth;
  return {even_blocks(p.rows, packed ? kPackedRows : kExpandedRows, kRows), 1, false};
#endif
}

INLINE ProductScratch product_scratch(Arena& arena, const Product& p, const Blocking& blocking) {
  ProductScratch scratch = {};
  scratch.tile = arena.take<float>((size_t)blocking.panels * blocking.rows * kPanel);
  scratch.rows = arena.take<const act_t*>(blocking.rows);
  if (!p.weights->packed) {
    const size_t length = piece_length(p.weights->rows);
    scratch.buffer = arena.take<float>(length * kPackRows);
    if (!blocking.expands_first) scratch.piece = arena.take<weight_t>(length * kPanel * blocking.panels);
  }
  return scratch;
}

/// That of thread `ith`; what all threads share comes first.
INLINE ProductScratch product_scratches(Arena& arena, const Product& p, const Blocking& blocking, int ith) {
  weight_t* expanded = nullptr;
  if (blocking.expands_first) expanded = arena.take<weight_t>(packed_size(Algorithm::direct, &p.weights->rows) / sizeof(weight_t));
  ProductScratch scratch = {};
  for (int i = 0; i <= ith; ++i) scratch = product_scratch(arena, p, blocking);
  scratch.expanded = expanded;
  return scratch;
}

INLINE const act_t* pixel_address(const Product& p, int row) {
  const int x = row % p.width, y = row / p.width % p.height, b = row / p.width / p.height;
  const int64_t line = (int64_t)b * p.src_height + y * p.stride + p.origin;
  return p.src + (line * p.src_width + x * p.stride + p.origin) * p.pixel_stride;
}

INLINE int64_t tap_offset(const Product& p, int tap) {
  return ((int64_t)(tap / p.kernel) * p.src_width + tap % p.kernel) * p.pixel_stride;
}

/// Where column `k` of [taps][in_features] lies in a panel.
INLINE int64_t panel_offset(const WeightRows& w, int64_t k) {
  return (k / w.in_features * tap_width(w) + k % w.in_features) * kPanel;
}

/// Sums of a block of rows for columns `first` to `end` of the inner dimension. `words` are those of the first panel from
/// there on, the next panel's lie `panel_words` further.
static void product_columns(const Product& p, const ProductScratch& scratch, const Blocking& blocking, int count,
                            int first_panel, int panels, int64_t first, int64_t end, const weight_t* words,
                            int64_t panel_words) {
  const WeightRows& w = p.weights->rows;
  const bool far = (int64_t)p.rows * p.pixel_stride * (int)sizeof(act_t) > kFarBytes;
  for (int64_t k = first; k < end;) {
    const int64_t tap = k / w.in_features, channel = k % w.in_features;
    const int64_t left = w.in_features - channel < end - k ? w.in_features - channel : end - k;
    const int count_k = even_blocks((int)left, kMostColumns, kInnerStep);
    const int pairs = (int)((count_k + 1) / 2);
    const int64_t offset = tap_offset(p, (int)tap) + channel;
    const int64_t chunk_words = (int64_t)pairs * 2 * kPanel;
    for (int r = 0; r < count; r += kGroupRows) {
      const RowGroup group(scratch.rows + r, min_of(kGroupRows, count - r), offset, pairs, far);
      for (int i = 0; i < panels; ++i) {
        const int columns = min_of(kPanel, w.out_features - (first_panel + i) * kPanel);
        group.multiply(words + i * panel_words, scratch.tile + ((int64_t)i * blocking.rows + r) * kPanel, k > 0, columns);
      }
    }
    words += chunk_words;
    k += count_k;
  }
}

/// tile = rows * panels^T over all taps.
static void product_tile(const Product& p, const Blocking& blocking, int first_panel, int panels, int count,
                         const ProductScratch& scratch) {
  const WeightRows& w = p.weights->rows;
  const int64_t length = row_length(w), size = panel_size(Algorithm::direct, w);
  const weight_t* packed = blocking.expands_first ? scratch.expanded : (const weight_t*)p.weights->packed;
  if (packed) {
    product_columns(p, scratch, blocking, count, first_panel, panels, 0, length, packed + first_panel * size, size);
    return;
  }
  const int64_t piece = by_pieces(w) ? kPiece : length, panel_words = piece_length(w) * kPanel;
  for (int64_t first = 0; first < length; first += piece) {
    const int64_t end = first + piece < length ? first + piece : length;
    for (int i = 0; i < panels; ++i) {
      pack_direct(w, first_panel + i, first, end - first, scratch.buffer, scratch.piece + i * panel_words);
    }
    product_columns(p, scratch, blocking, count, first_panel, panels, first, end, scratch.piece, panel_words);
  }
}

/// Bias, activation and residual on the way from a tile to the result.
static void product_store(const Product& p, int panel, int first_row, int count, const float* tile) {
  const int first = panel * kPanel, columns = min_of(kPanel, p.weights->rows.out_features - first);
  for (int r = 0; r < count; ++r, tile += kPanel) {
    const int64_t index = (first_row + r) * p.dst_stride + first;
    const float* residual = p.residual ? p.residual + (first_row + r) * p.residual_stride + first : nullptr;
    for (int c = 0; c < columns; c += kLanes) {
      const int lanes = min_of(kLanes, columns - c);
      vf x = vload(tile + c);
      if (p.bias) x = vadd(x, vload_part(p.bias + first + c, lanes));
      x = activate(x, p.activation);
      if (residual) x = vadd(x, vload_part(residual + c, lanes));
      store_as(p.f32_dst, p.dst, index + c, x, lanes);
    }
  }
}

static void expand_weights(const Product& p, const ProductScratch& scratch, WorkContext* work, int nth) {
  const WeightRows& w = p.weights->rows;
  const int64_t length = row_length(w), piece = by_pieces(w) ? kPiece : length;
  const int pieces = (int)((length + piece - 1) / piece), tasks = panel_count(w) * pieces;
  for (int task; (task = take_task(work)) < tasks;) {
    const int panel = task / pieces;
    const int64_t first = task % pieces * piece, count = length - first < piece ? length - first : piece;
    weight_t* words = scratch.expanded + panel * panel_size(Algorithm::direct, w) + panel_offset(w, first);
    pack_direct(w, panel, first, count, scratch.buffer, words);
  }
  barrier(work, nth);
}

static void product(const Product& p, WorkContext* work, int ith, int nth) {
  Arena arena{work->scratch, 0};
  const Blocking blocking = product_blocking(p, nth);
  const ProductScratch scratch = product_scratches(arena, p, blocking, ith);
  if (blocking.expands_first) expand_weights(p, scratch, work, nth);
  const int all = panel_count(p.weights->rows), groups = ceil_div(all, blocking.panels);
  const int blocks = ceil_div(p.rows, blocking.rows);
  const MatrixUnit unit;
  for (int task; (task = take_task(work)) < groups * blocks;) {
    // Vectors: neighbours share a panel, which stays in a cache; the matrix unit: the rows.
#ifdef MATRIX_UNIT
    const int group = task % groups, block = task / groups;
#else
    const int group = task / blocks, block = task % blocks;
#endif
    const int first_panel = group * blocking.panels, panels = min_of(blocking.panels, all - first_panel);
    const int first_row = block * blocking.rows, count = min_of(blocking.rows, p.rows - first_row);
    for (int r = 0; r < count; ++r) scratch.rows[r] = pixel_address(p, first_row + r);
    product_tile(p, blocking, first_panel, panels, count, scratch);
    for (int i = 0; i < panels; ++i) {
      product_store(p, first_panel + i, first_row, count, scratch.tile + (int64_t)i * blocking.rows * kPanel);
    }
  }
  barrier(work, nth);
}

static size_t product_scratch_size(const Product& p, int nth) {
  Arena arena{nullptr, 0};
  product_scratches(arena, p, product_blocking(p, nth), nth - 1);
  return arena.used;
}

static Product gemm_product(const GemmArgs* a) {
  return {(const act_t*)a->src, a->src_stride, 1,           a->rows,     1,           a->rows,
          a->rows,              1,             1,           0,           &a->weights, a->bias,
          a->activation,        a->residual,   a->residual_stride, a->f32_dst, a->dst,      a->dst_stride};
}

static Product conv_product(const ConvArgs* a) {
  const int out = a->weights.rows.out_features;
  return {(const act_t*)a->src, tap_width(a->weights.rows), a->src_height, a->src_width, a->height, a->width,
          a->batch * a->height * a->width, a->kernel, a->stride, a->origin, &a->weights, a->bias,
          Activation::none, a->residual, out, true, a->dst, out};
}

static size_t gemm_scratch(const GemmArgs* args, int nth) { return product_scratch_size(gemm_product(args), nth); }

static void gemm(const GemmArgs* args, WorkContext* work, int ith, int nth) {
  product(gemm_product(args), work, ith, nth);
}
