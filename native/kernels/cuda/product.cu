// Convolution as an implicit matrix product, and linear layers as its 1x1 case: every pixel (token) is a row of a product
// whose inner dimension runs over taps and input channels. No im2col: a tap is an offset into the source, which has its
// border of zeros. bfloat16 operands, float32 sums.
//
// A block of 4 warps makes a tile of the result; each warp a quarter of it. Shared memory holds three steps of 32 inner
// values: two are on their way (cp.async) while one is multiplied (mma.sync). Weights come as bfloat16, or in the
// stored type, expanded on their way to shared memory: that reads a quarter to a half of the memory but is repeated
// for every tile of rows, so it is for products with few of them (the small images of a UNet have most of its
// weights). Where there are too few tiles to fill a card the inner dimension is split, and the parts are added in order.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/stored.h"

namespace kandinsky::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kStep = 32;         // inner values in one stage of shared memory: rows of 64 bytes
constexpr int kStages = 3;
constexpr int kWantedBlocks = 256;  // about two for each multiprocessor of a large card
constexpr int kMinSteps = 8;        // of a part, which must repay being written and read again
constexpr int kMaxParts = 16;
constexpr int kMaxStoredRows = 512;  // more rows: weights are expanded first

struct Product {
  const uint16_t* src;
  int64_t pixel_stride;  // values
  int src_height, src_width, height, width, kernel, stride, origin;
  int rows, columns;
  int channels, depth;  // of a tap, made even; of all taps
  const unsigned char* weights;
  int64_t row_bytes;
  const float* bias;
  Activation activation;
  const float* residual;
  int64_t residual_stride;
  bool f32_dst, is_paired;  // paired: two values of a row may be written at once
  void* dst;
  int64_t dst_stride;
  float* parts;        // [parts][rows][even(columns)], or null: not split
  int steps_per_part;
};

/// Where a chunk of 16 bytes of a row of a tile is: moved so that neither 8 rows of one chunk, which ldmatrix reads, nor 4
/// chunks of 2 rows meet in a bank.
__device__ inline int tile_offset(int row, int chunk) { return row * (2 * kStep) + ((chunk ^ (row >> 1 & 3)) << 4); }

/// Copies of kCopy values (8 or 2) that fill a tile of kRows rows; each thread has the same column of several rows.
template <int kRows, int kCopy>
struct TileCopies {
  static constexpr int per_row = kStep / kCopy, count = kRows * per_row / kThreads, row_step = kThreads / per_row;
  static __device__ int row(int i) { return static_cast<int>(threadIdx.x) / per_row + i * row_step; }
  static __device__ int column() { return static_cast<int>(threadIdx.x) % per_row * kCopy; }
  static __device__ uint32_t offset(int i) { return tile_offset(row(i), column() / 8) + column() % 8 * 2; }
  static __device__ void copy(uint32_t target, const uint16_t* source, bool is_valid) {
    if constexpr (kCopy == 8) {
      cp_async_16(target, source, is_valid);
    } else {
      cp_async_4(target, source, is_valid);
    }
  }
};

/// This thread's share of the source's tiles, one step after the other.
template <int kRows, int kCopy>
struct SourceLoader {
  using Copies = TileCopies<kRows, kCopy>;

  __device__ SourceLoader(const Product& p, int first_row, int first_k) : p(p), k(first_k + Copies::column()) {
    const int tap = k / p.channels, tap_row = tap / p.kernel;
    channel = k - tap * p.channels;
    tap_column = tap - tap_row * p.kernel;
    tap_offset = (static_cast<int64_t>(tap_row) * p.src_width + tap_column) * p.pixel_stride;
#pragma unroll
    for (int i = 0; i < Copies::count; ++i) {
      const int row = first_row + Copies::row(i);
      is_row[i] = row < p.rows;
      const int pixel = is_row[i] ? row : 0;
      const int x = pixel % p.width, y = pixel / p.width % p.height, b = pixel / p.width / p.height;
      const int64_t line = static_cast<int64_t>(b) * p.src_height + y * p.stride + p.origin;
      pixels[i] = p.src + (line * p.src_width + x * p.stride + p.origin) * p.pixel_stride;
    }
  }

  __device__ void load(uint32_t tile) {
    const bool is_inside = k < p.depth;
#pragma unroll
    for (int i = 0; i < Copies::count; ++i) {
      const bool is_valid = is_inside && is_row[i];
      Copies::copy(tile + Copies::offset(i), is_valid ? pixels[i] + tap_offset + channel : p.src, is_valid);
    }
    k += kStep;
    channel += kStep;
    while (channel >= p.channels) {
      channel -= p.channels;
      tap_offset += p.pixel_stride;
      if (++tap_column == p.kernel) {
        tap_column = 0;
        tap_offset += static_cast<int64_t>(p.src_width - p.kernel) * p.pixel_stride;
      }
    }
  }

  const Product& p;
  int k, channel, tap_column;
  int64_t tap_offset;
  const uint16_t* pixels[Copies::count];
  bool is_row[Copies::count];
};

/// The same for weights, in two steps: `fetch` begins, `store` ends.
template <int kColumns, int kCopy, StoredType type>
struct WeightLoader {
  using Copies = TileCopies<kColumns, 8>;

  __device__ WeightLoader(const Product& p, int first_column, int first_k)
      : p(p), first_column(first_column), k(first_k + Copies::column()) {}

  __device__ void fetch(uint32_t) {
#pragma unroll
    for (int i = 0; i < Copies::count; ++i) {
      const int row = first_column + Copies::row(i);
      is_valid[i] = row < p.columns && k < p.depth;
      raw[i] = Stored<type>::fetch(p.weights + (is_valid[i] ? row : 0) * p.row_bytes, is_valid[i] ? k : 0);
    }
    k += kStep;
  }
  __device__ void store(unsigned char* tile) {
#pragma unroll
    for (int i = 0; i < Copies::count; ++i) {
      *reinterpret_cast<uint4*>(tile + Copies::offset(i)) = is_valid[i] ? expand_bf16<type>(raw[i]) : uint4{0, 0, 0, 0};
    }
  }

  const Product& p;
  int first_column, k;
  typename Stored<type>::Raw raw[Copies::count];
  bool is_valid[Copies::count];
};

template <int kColumns, int kCopy>
struct WeightLoader<kColumns, kCopy, StoredType::bf16> {
  using Copies = TileCopies<kColumns, kCopy>;

  __device__ WeightLoader(const Product& p, int first_column, int first_k)
      : p(p), k(first_k + Copies::column()), columns(p.columns - first_column),
        row(p.weights + (first_column + Copies::row(0)) * p.row_bytes) {}

  __device__ void fetch(uint32_t tile) {
    const bool is_inside = k < p.depth;
#pragma unroll
    for (int i = 0; i < Copies::count; ++i) {
      const bool is_valid = is_inside && Copies::row(i) < columns;
      const unsigned char* source = row + i * Copies::row_step * p.row_bytes + 2 * k;
      Copies::copy(tile + Copies::offset(i), reinterpret_cast<const uint16_t*>(is_valid ? source : p.weights), is_valid);
    }
    k += kStep;
  }
  __device__ void store(unsigned char*) {}

  const Product& p;
  int k, columns;
  const unsigned char* row;
};

/// Bias, activation and residual on the way to the result; `column` is even.
__device__ inline void store_pair(const Product& p, int row, int column, float low, float high) {
  const bool has_high = column + 1 < p.columns;
  if (p.bias) {
    low += p.bias[column];
    if (has_high) high += p.bias[column + 1];
  }
  low = activate(low, p.activation);
  high = activate(high, p.activation);
  if (p.residual) {
    const float* residual = p.residual + row * p.residual_stride + column;
    low += residual[0];
    if (has_high) high += residual[1];
  }
  const int64_t index = row * p.dst_stride + column;
  if (!p.f32_dst) {
    // The next product reads an even number of channels.
    *reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(p.dst) + index) = pack_bf16(low, has_high ? high : 0.0f);
  } else if (p.is_paired) {
    *reinterpret_cast<float2*>(static_cast<float*>(p.dst) + index) = {low, high};
  } else {
    static_cast<float*>(p.dst)[index] = low;
    if (has_high) static_cast<float*>(p.dst)[index + 1] = high;
  }
}

template <int kRows, int kColumns, int kCopy, StoredType type>
__global__ void __launch_bounds__(kThreads, 2) product_kernel(const Product p) {
  constexpr int kRowTiles = kRows / 32, kColumnTiles = kColumns / 16;  // of a warp: 16 rows, 8 columns each
  constexpr uint32_t kSourceBytes = kRows * kStep * 2, kStageBytes = kSourceBytes + kColumns * kStep * 2;
  unsigned char* const shared = shared_memory();
  const uint32_t tiles = shared_address(shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_row = blockIdx.x * kRows, first_column = blockIdx.y * kColumns;
  const int first_step = blockIdx.z * p.steps_per_part;
  const int steps = min_of(p.steps_per_part, ceil_div(p.depth, kStep) - first_step);
  SourceLoader<kRows, kCopy> source(p, first_row, first_step * kStep);
  WeightLoader<kColumns, kCopy, type> weights(p, first_column, first_step * kStep);

#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < steps) {
      source.load(tiles + stage * kStageBytes);
      weights.fetch(tiles + stage * kStageBytes + kSourceBytes);
      weights.store(shared + stage * kStageBytes + kSourceBytes);
    }
    cp_async_commit();
  }

  float sums[kRowTiles][kColumnTiles][4] = {};
  // Lane by lane, the rows that ldmatrix reads: of a, 16 rows by two chunks; of b, two times 8 rows by two chunks.
  const int a_row = warp / 2 * (kRows / 2) + lane % 16, a_chunk = lane / 16;
  const int b_row = warp % 2 * (kColumns / 2) + lane / 16 * 8 + lane % 8, b_chunk = lane / 8 % 2;
  int stage = 0, next = kStages - 1;
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<kStages - 2>();
    __syncthreads();
    const bool has_next = step + kStages - 1 < steps;
    if (has_next) {
      source.load(tiles + next * kStageBytes);
      weights.fetch(tiles + next * kStageBytes + kSourceBytes);
    }
    cp_async_commit();
    const uint32_t a_tile = tiles + stage * kStageBytes, b_tile = a_tile + kSourceBytes;
#pragma unroll
    for (int k = 0; k < kStep / 16; ++k) {
      uint32_t a[kRowTiles][4];
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) ldmatrix_x4(a[i], a_tile + tile_offset(a_row + 16 * i, 2 * k + a_chunk));
#pragma unroll
      for (int j = 0; j < kColumnTiles; j += 2) {
        uint32_t b[4];
        ldmatrix_x4(b, b_tile + tile_offset(b_row + 8 * j, 2 * k + b_chunk));
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i) {
          mma_bf16(sums[i][j], a[i], b[0], b[1]);
          mma_bf16(sums[i][j + 1], a[i], b[2], b[3]);
        }
      }
    }
    if (has_next) weights.store(shared + next * kStageBytes + kSourceBytes);
    stage = stage + 1 == kStages ? 0 : stage + 1;
    next = next + 1 == kStages ? 0 : next + 1;
  }

  const int row = first_row + warp / 2 * (kRows / 2) + lane / 4;
  const int column = first_column + warp % 2 * (kColumns / 2) + lane % 4 * 2;
  const int part_stride = round_up(p.columns, 2);
#pragma unroll
  for (int i = 0; i < 2 * kRowTiles; ++i) {
    const int r = row + 8 * i;
    if (r >= p.rows) continue;
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j) {
      const int c = column + 8 * j;
      const float low = sums[i / 2][j][i % 2 * 2], high = sums[i / 2][j][i % 2 * 2 + 1];
      if (c >= p.columns) continue;
      if (p.parts) {
        float* part = p.parts + (static_cast<int64_t>(blockIdx.z) * p.rows + r) * part_stride + c;
        *reinterpret_cast<float2*>(part) = {low, high};
      } else {
        store_pair(p, r, c, low, high);
      }
    }
  }
}

constexpr int kSumThreads = 256;

/// The result from the parts of a split product.
__global__ void __launch_bounds__(kSumThreads) sum_parts(const Product p, int parts) {
  const int pairs = ceil_div(p.columns, 2);
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x, size = static_cast<int64_t>(p.rows) * pairs;
  if (i >= size) return;
  float low = 0, high = 0;
  for (int part = 0; part < parts; ++part) {
    const float2 sum = *reinterpret_cast<const float2*>(p.parts + 2 * (part * size + i));
    low += sum.x;
    high += sum.y;
  }
  store_pair(p, static_cast<int>(i / pairs), static_cast<int>(i % pairs) * 2, low, high);
}

// ---- on the host ---------------------------------------------------------------------------------------------------

/// How a product is cut.
struct Cut {
  int rows, columns;  // of a tile
  int parts, steps_per_part;
};

/// Whether operands come in pieces of 16 bytes. ggml's tensors, and views of whole rows of them, are aligned then.
bool is_wide(const Product& p) { return p.channels % 8 == 0 && p.pixel_stride % 8 == 0; }

/// Whether weights are expanded on their way into shared memory.
bool reads_stored(const Product& p, const ProductWeights& weights) {
  const WeightRows& w = weights.rows;
  const bool is_known = w.type == StoredType::q8_0 || w.type == StoredType::q4_k || w.type == StoredType::f16;
  return !weights.packed && is_known && p.rows <= kMaxStoredRows && is_wide(p) && w.in_features % 8 == 0;
}

/// Whether they are read as they lie: the layout of packed ones is that of bfloat16 rows.
bool reads_in_place(const ProductWeights& weights) {
  const WeightRows& w = weights.rows;
  return weights.packed || (w.type == StoredType::bf16 && w.in_features % 8 == 0 && is_aligned(w.data, w.row_bytes, 16));
}

Cut cut_of(const Product& p, bool stored) {
  const bool large = p.rows > 64 && p.columns > 64;
  Cut cut = {stored || large ? 128 : 64, stored || !large ? 64 : 128, 1, 0};
  const int64_t tiles = static_cast<int64_t>(ceil_div(p.rows, cut.rows)) * ceil_div(p.columns, cut.columns);
  const int steps = ceil_div(p.depth, kStep);
  const int wanted = static_cast<int>(ceil_div<int64_t>(kWantedBlocks, tiles));
  cut.parts = max_of(1, min_of(min_of(wanted, kMaxParts), steps / kMinSteps));
  cut.steps_per_part = ceil_div(steps, cut.parts);
  cut.parts = ceil_div(steps, cut.steps_per_part);
  return cut;
}

/// Weights as bfloat16 where they are expanded first, and the parts of a split product.
struct Scratch {
  uint16_t* weights;
  float* parts;
};

Scratch product_scratch(const Product& p, const ProductWeights& weights, Arena& arena) {
  Scratch scratch = {};
  const bool stored = reads_stored(p, weights);
  const Cut cut = cut_of(p, stored);
  if (!stored && !reads_in_place(weights)) scratch.weights = arena.take<uint16_t>(packed_values(weights.rows));
  if (cut.parts > 1) scratch.parts = arena.take<float>(static_cast<size_t>(cut.parts) * p.rows * even(p.columns));
  return scratch;
}

template <int kRows, int kColumns, int kCopy, StoredType type>
void launch_product(const Product& p, const Cut& cut, void* stream) {
  const Grid grid = {static_cast<unsigned>(ceil_div(p.rows, kRows)), static_cast<unsigned>(ceil_div(p.columns, kColumns)),
                     static_cast<unsigned>(cut.parts)};
  launch(product_kernel<kRows, kColumns, kCopy, type>, grid, kThreads, kStages * (kRows + kColumns) * kStep * 2, stream, p);
}

void product(Product p, const ProductWeights& weights, WorkContext* work) {
  Arena arena{work->scratch, 0};
  const bool stored = reads_stored(p, weights);
  const Cut cut = cut_of(p, stored);
  const Scratch scratch = product_scratch(p, weights, arena);
  p.steps_per_part = cut.steps_per_part;
  p.parts = scratch.parts;
  p.is_paired = p.columns % 2 == 0 && is_aligned(p.dst, p.dst_stride * sizeof(float), sizeof(float2));
  p.weights = static_cast<const unsigned char*>(weights.packed ? weights.packed : weights.rows.data);
  p.row_bytes = weights.rows.row_bytes;
  if (weights.packed || scratch.weights) p.row_bytes = static_cast<int64_t>(p.depth) * sizeof(uint16_t);
  if (scratch.weights) {
    expand_weights(weights.rows, scratch.weights, work->stream);
    p.weights = reinterpret_cast<const unsigned char*>(scratch.weights);
  }
  if (stored) {
    switch (weights.rows.type) {
      case StoredType::q8_0: launch_product<128, 64, 8, StoredType::q8_0>(p, cut, work->stream); break;
      case StoredType::q4_k: launch_product<128, 64, 8, StoredType::q4_k>(p, cut, work->stream); break;
      default: launch_product<128, 64, 8, StoredType::f16>(p, cut, work->stream);
    }
  } else if (!is_wide(p)) {
    launch_product<64, 64, 2, StoredType::bf16>(p, cut, work->stream);
  } else if (cut.columns == 128) {
    launch_product<128, 128, 8, StoredType::bf16>(p, cut, work->stream);
  } else {
    launch_product<64, 64, 8, StoredType::bf16>(p, cut, work->stream);
  }
  if (!p.parts) return;
  const int64_t pairs = static_cast<int64_t>(p.rows) * even(p.columns) / 2;
  launch(sum_parts, {static_cast<unsigned>(ceil_div<int64_t>(pairs, kSumThreads))}, kSumThreads, 0, work->stream, p, cut.parts);
}

Product product_of(const ConvArgs& a) {
  Product p = {};
  const WeightRows& w = a.weights.rows;
  p.src = static_cast<const uint16_t*>(a.src);
  p.channels = even(w.in_features);
  p.pixel_stride = p.channels;
  p.src_height = a.src_height;
  p.src_width = a.src_width;
  p.height = a.height;
  p.width = a.width;
  p.kernel = a.kernel;
  p.stride = a.stride;
  p.origin = a.origin;
  p.rows = a.batch * a.height * a.width;
  p.columns = w.out_features;
  p.depth = w.taps * p.channels;
  p.bias = a.bias;
  p.residual = a.residual;
  p.residual_stride = p.dst_stride = w.out_features;
  p.f32_dst = true;
  p.dst = a.dst;
  return p;
}

Product product_of(const GemmArgs& a) {
  Product p = {};
  const WeightRows& w = a.weights.rows;
  p.src = static_cast<const uint16_t*>(a.src);
  p.channels = p.depth = even(w.in_features);
  p.pixel_stride = a.src_stride;
  p.src_height = p.height = 1;
  p.src_width = p.width = p.rows = a.rows;
  p.kernel = p.stride = 1;
  p.columns = w.out_features;
  p.bias = a.bias;
  p.activation = a.activation;
  p.residual = a.residual;
  p.residual_stride = a.residual_stride;
  p.f32_dst = a.f32_dst;
  p.dst = a.dst;
  p.dst_stride = a.dst_stride;
  return p;
}

template <typename Args>
size_t scratch_of(const Args& args) {
  Arena arena{nullptr, 0};
  product_scratch(product_of(args), args.weights, arena);
  return arena.used;
}

}  // namespace

size_t conv_scratch(const ConvArgs* args, int) { return scratch_of(*args); }
size_t gemm_scratch(const GemmArgs* args, int) { return scratch_of(*args); }

void conv(const ConvArgs* args, WorkContext* work, int ith, int) {
  if (ith == 0) product(product_of(*args), args->weights, work);
}

void gemm(const GemmArgs* args, WorkContext* work, int ith, int) {
  if (ith == 0) product(product_of(*args), args->weights, work);
}

}  // namespace kandinsky::cuda
