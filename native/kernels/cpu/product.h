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

constexpr int kPackedRows = 96;     // rows of one task: their sums, 24 KB, stay in the L2 cache beside the panel
constexpr int kExpandedRows = 1020;  // more when a panel must be expanded first, to do that less often
constexpr int64_t kFarBytes = 8 << 20;  // a source larger than this does not stay in the near caches
constexpr int kPiece = 512;          // weights of a row that are expanded at a time

/// What one thread needs.
struct ProductScratch {
  float* tile;
  const act_t** rows;
  float* buffer;
  weight_t* piece;
};

INLINE bool by_pieces(const WeightRows& w) { return w.in_features % 2 == 0; }

INLINE int row_block(const ProductWeights& weights, int rows) {
  const int limit = weights.packed ? kPackedRows : kExpandedRows;
  return min_of(round_up(ceil_div(rows, ceil_div(rows, limit)), kRows), rows);
}

INLINE ProductScratch product_scratch(Arena& arena, const Product& p) {
  const int block = row_block(*p.weights, p.rows);
  ProductScratch scratch = {};
  scratch.tile = arena.take<float>((size_t)block * kPanel);
  scratch.rows = arena.take<const act_t*>(block);
  if (!p.weights->packed) {
    const WeightRows& w = p.weights->rows;
    const size_t length = by_pieces(w) ? kPiece : (size_t)w.taps * tap_width(w);
    scratch.buffer = arena.take<float>(length * kPackRows);
    scratch.piece = arena.take<weight_t>(length * kPanel);
  }
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

/// tile = rows * panel^T over all taps.
static void product_tile(const Product& p, int panel, int count, const ProductScratch& scratch) {
  const WeightRows& w = p.weights->rows;
  const int width = tap_width(w), columns = min_of(kPanel, w.out_features - panel * kPanel);
  const bool far = (int64_t)p.rows * p.pixel_stride * (int)sizeof(act_t) > kFarBytes;
  if (p.weights->packed) {
    const weight_t* words = (const weight_t*)p.weights->packed + panel * panel_size(Algorithm::direct, w);
    for (int tap = 0; tap < w.taps; ++tap, words += (int64_t)width * kPanel) {
      multiply(scratch.rows, count, tap_offset(p, tap), words, width / 2, scratch.tile, tap > 0, columns, far);
    }
    return;
  }
  const int64_t length = row_length(w), piece = by_pieces(w) ? kPiece : length;
  for (int64_t first = 0; first < length; first += piece) {
    const int64_t end = first + piece < length ? first + piece : length;
    pack_direct(w, panel, first, end - first, scratch.buffer, scratch.piece);
    const weight_t* words = scratch.piece;
    for (int64_t k = first; k < end;) {
      const int64_t tap = k / w.in_features, channel = k % w.in_features;
      const int64_t count_k = k + w.in_features - channel < end ? w.in_features - channel : end - k;
      const int pairs = (int)((count_k + 1) / 2);
      multiply(scratch.rows, count, tap_offset(p, (int)tap) + channel, words, pairs, scratch.tile, k > 0, columns,
               far);
      words += (int64_t)pairs * 2 * kPanel;
      k += count_k;
    }
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

static void product(const Product& p, WorkContext* work, int ith, int nth) {
  Arena arena{work->scratch, 0};
  ProductScratch scratch = {};
  for (int i = 0; i <= ith; ++i) scratch = product_scratch(arena, p);
  const int block = row_block(*p.weights, p.rows), blocks = ceil_div(p.rows, block);
  const int tasks = panel_count(p.weights->rows) * blocks;
  for (int task; (task = take_task(work)) < tasks;) {
    const int panel = task / blocks, first_row = task % blocks * block, count = min_of(block, p.rows - first_row);
    for (int r = 0; r < count; ++r) scratch.rows[r] = pixel_address(p, first_row + r);
    product_tile(p, panel, count, scratch);
    product_store(p, panel, first_row, count, scratch.tile);
  }
  barrier(work, nth);
}

static size_t product_scratch_size(const Product& p, int nth) {
  Arena arena{nullptr, 0};
  for (int i = 0; i < nth; ++i) product_scratch(arena, p);
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
