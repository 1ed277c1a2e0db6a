// Flash attention (Dao et al. 2022): a block of queries walks over blocks of 64 keys with a running maximum and sum, so
// that no score matrix exists. Added keys (the image or text context) come first.
//
// A block of 4 warps has 64 or 128 queries of one head, each warp its own rows from scores to result. Keys and values
// come through shared memory in tiles of 64 rows by 64 of the head's values, four at a time (cp.async): those of the
// keys, then those of the values. Heads wider than the values that registers can sum up (256) are computed in parts, each of
// which computes the scores anew.
#include "kernels/cuda/common.h"
#include "kernels/cuda/kernels.h"

namespace kandinsky::cuda {

namespace {

constexpr int kThreads = 128, kWarps = 4;
constexpr int kTile = 64;  // keys, and values of a head, of one tile
constexpr int kTileBytes = kTile * kTile * 2;
constexpr int kStages = 4;

/// Where a chunk of 16 bytes of a row of a tile is: 8 rows of one chunk, which ldmatrix reads, lie in different banks.
__device__ inline int tile_offset(int row, int chunk) { return row * (2 * kTile) + ((chunk ^ (row & 7)) << 4); }

/// Copies `rows` x 64 values: row i from source(i), null for zeros, and zeros from the head's end on.
template <int kCopy, typename Source>
__device__ inline void copy_tile(uint32_t tile, int rows, int values, const void* anywhere, const Source& source) {
  constexpr int per_row = kTile / kCopy;
  const int column = threadIdx.x % per_row * kCopy;
  for (int row = threadIdx.x / per_row; row < rows; row += kThreads / per_row) {
    const uint16_t* from = source(row);
    const bool is_valid = from && column < values;
    const uint32_t target = tile + tile_offset(row, column / 8) + column % 8 * 2;
    if constexpr (kCopy == 8) {
      cp_async_16(target, is_valid ? from + column : anywhere, is_valid);
    } else {
      cp_async_4(target, is_valid ? from + column : anywhere, is_valid);
    }
  }
}

/// One head of one sample.
struct Head {
  __device__ Head(const AttentionArgs& a, int batch, int head) : a(a), batch(batch), column(static_cast<int64_t>(head) * a.head_dim) {}
  __device__ const uint16_t* query(int i) const {
    return static_cast<const uint16_t*>(a.q) + (static_cast<int64_t>(batch) * a.queries + i) * a.q_stride + column;
  }
  /// Key (or value) i, added ones first; null beyond the last.
  __device__ const uint16_t* key(const void* added, const void* own, int i) const {
    if (i < a.added_tokens) {
      return static_cast<const uint16_t*>(added) + (static_cast<int64_t>(batch) * a.added_tokens + i) * a.added_stride + column;
    }
    i -= a.added_tokens;
    if (i >= a.tokens) return nullptr;
    return static_cast<const uint16_t*>(own) + (static_cast<int64_t>(batch) * a.tokens + i) * a.kv_stride + column;
  }
  const AttentionArgs& a;
  int batch;
  int64_t column;
};

/// kValues: of the head, that one block sums up. kQueryTiles: of 16 queries, of one warp.
template <int kValues, int kQueryTiles, int kCopy>
__global__ void __launch_bounds__(kThreads) attention_kernel(const AttentionArgs a) {
  constexpr int kQueries = 16 * kQueryTiles * kWarps, kValueTiles = kValues / kTile;
  const uint32_t query_tiles = shared_address(shared_memory());
  const int key_tiles = ceil_div(a.head_dim, kTile), per_block = key_tiles + kValueTiles;
  const uint32_t ring = query_tiles + key_tiles * kQueries * kTile * 2;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_query = blockIdx.x * kQueries, head_index = blockIdx.y;
  const int parts = ceil_div(a.head_dim, kValues), batch = blockIdx.z / parts, first_value = blockIdx.z % parts * kValues;
  const Head head(a, batch, head_index);
  const int keys = a.added_tokens + a.tokens, tile_count = ceil_div(keys, kTile) * per_block;

  for (int i = 0; i < key_tiles; ++i) {
    copy_tile<kCopy>(query_tiles + i * kQueries * kTile * 2, kQueries, a.head_dim - i * kTile, a.q, [&](int row) {
      return first_query + row < a.queries ? head.query(first_query + row) + i * kTile : nullptr;
    });
  }
  int loaded = 0, load_block = 0, load_tile = 0, load_stage = 0;  // the next tile to load
  const auto load = [&] {
    if (loaded < tile_count) {
      const bool is_key = load_tile < key_tiles;
      const int from = is_key ? load_tile * kTile : first_value + (load_tile - key_tiles) * kTile;
      copy_tile<kCopy>(ring + load_stage * kTileBytes, kTile, a.head_dim - from, a.q, [&](int row) {
        const uint16_t* key = head.key(is_key ? a.added_k : a.added_v, is_key ? a.k : a.v, load_block * kTile + row);
        return key ? key + from : nullptr;
      });
      ++loaded;
      if (++load_tile == per_block) {
        load_tile = 0;
        ++load_block;
      }
      load_stage = (load_stage + 1) % kStages;
    }
    cp_async_commit();
  };
  for (int i = 0; i < kStages - 1; ++i) load();
  int stage = 0;
  /// The next tile, which has landed, while another one is loaded.
  const auto next_tile = [&] {
    cp_async_wait<kStages - 2>();
    __syncthreads();
    load();
    const uint32_t tile = ring + stage * kTileBytes;
    stage = (stage + 1) % kStages;
    return tile;
  };

  float sums[kQueryTiles][kValues / 8][4] = {};
  float maximum[kQueryTiles][2], total[kQueryTiles][2] = {};  // of the two rows of a tile that this thread has values of
#pragma unroll
  for (int i = 0; i < kQueryTiles; ++i) maximum[i][0] = maximum[i][1] = -1e30f;
  const int first_row = warp * 16 * kQueryTiles;

  for (int first_key = 0; first_key < keys; first_key += kTile) {
    float scores[kQueryTiles][kTile / 8][4] = {};
    for (int d = 0; d < key_tiles; ++d) {
      const uint32_t tile = next_tile(), queries = query_tiles + d * kQueries * kTile * 2;
#pragma unroll
      for (int k = 0; k < kTile / 16; ++k) {
        uint32_t q[kQueryTiles][4];
#pragma unroll
        for (int i = 0; i < kQueryTiles; ++i) {
          ldmatrix_x4(q[i], queries + tile_offset(first_row + 16 * i + lane % 16, 2 * k + lane / 16));
        }
#pragma unroll
        for (int j = 0; j < kTile / 8; j += 2) {
          uint32_t b[4];
          ldmatrix_x4(b, tile + tile_offset(8 * j + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
#pragma unroll
          for (int i = 0; i < kQueryTiles; ++i) {
            mma_bf16(scores[i][j], q[i], b[0], b[1]);
            mma_bf16(scores[i][j + 1], q[i], b[2], b[3]);
          }
        }
      }
    }

    uint32_t weights[kQueryTiles][kTile / 16][4];  // exp(score - maximum), as the product with the values reads them
#pragma unroll
    for (int i = 0; i < kQueryTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int query = min_of(first_query + first_row + 16 * i + 8 * half + lane / 4, a.queries - 1);
        const float* mask = a.mask ? a.mask + batch * a.mask_stride + head_index * a.mask_head_stride + query * a.mask_query_stride : nullptr;
        float top = -INFINITY;
#pragma unroll
        for (int j = 0; j < kTile / 4; ++j) {
          float& score = scores[i][j / 2][2 * half + j % 2];
          const int key = first_key + j / 2 * 8 + lane % 4 * 2 + j % 2;
          score *= a.scale * kLog2e;
          if (key >= keys) {
            score = -INFINITY;
          } else if (mask) {
            score = fmaf(mask[key], kLog2e, score);
          }
          top = fmaxf(top, score);
        }
        top = fmaxf(top, shuffle_xor(top, 1));
        top = fmaxf(top, shuffle_xor(top, 2));
        top = fmaxf(top, maximum[i][half]);
        const float shrink = exp2_fast(maximum[i][half] - top);
        maximum[i][half] = top;
        total[i][half] *= shrink;
#pragma unroll
        for (int j = 0; j < kValues / 8; ++j) {
          sums[i][j][2 * half] *= shrink;
          sums[i][j][2 * half + 1] *= shrink;
        }
#pragma unroll
        for (int j = 0; j < kTile / 8; ++j) {
          const float low = exp2_fast(scores[i][j][2 * half] - top), high = exp2_fast(scores[i][j][2 * half + 1] - top);
          total[i][half] += low + high;
          weights[i][j / 2][j % 2 * 2 + half] = pack_bf16(low, high);
        }
      }
    }

#pragma unroll
    for (int d = 0; d < kValueTiles; ++d) {
      const uint32_t tile = next_tile();
#pragma unroll
      for (int k = 0; k < kTile / 16; ++k) {
#pragma unroll
        for (int j = 0; j < kTile / 8; j += 2) {
          uint32_t b[4];
          ldmatrix_x4_transposed(b, tile + tile_offset(16 * k + lane / 8 % 2 * 8 + lane % 8, j + lane / 16));
#pragma unroll
          for (int i = 0; i < kQueryTiles; ++i) {
            mma_bf16(sums[i][d * (kTile / 8) + j], weights[i][k], b[0], b[1]);
            mma_bf16(sums[i][d * (kTile / 8) + j + 1], weights[i][k], b[2], b[3]);
          }
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < kQueryTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float all = total[i][half];
      all += shuffle_xor(all, 1);
      all += shuffle_xor(all, 2);
      const int query = first_query + first_row + 16 * i + 8 * half + lane / 4;
      if (query >= a.queries) continue;
      const int64_t row = (static_cast<int64_t>(batch) * a.queries + query) * a.dst_stride + head.column;
#pragma unroll
      for (int j = 0; j < kValues / 8; ++j) {
        const int value = first_value + 8 * j + lane % 4 * 2;
        if (value >= a.head_dim) continue;
        const float low = sums[i][j][2 * half] / all, high = sums[i][j][2 * half + 1] / all;
        if (a.f32_dst) {
          *reinterpret_cast<float2*>(static_cast<float*>(a.dst) + row + value) = {low, high};
        } else {
          *reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(a.dst) + row + value) = pack_bf16(low, high);
        }
      }
    }
  }
}

// ---- on the host ---------------------------------------------------------------------------------------------------

template <int kValues, int kQueryTiles, int kCopy>
void launch_attention(const AttentionArgs& a, void* stream) {
  constexpr int kQueries = 16 * kQueryTiles * kWarps;
  const size_t shared = static_cast<size_t>(ceil_div(a.head_dim, kTile)) * kQueries * kTile * 2 + kStages * kTileBytes;
  const Grid grid = {static_cast<unsigned>(ceil_div(a.queries, kQueries)), static_cast<unsigned>(a.heads),
                     static_cast<unsigned>(a.batch * ceil_div(a.head_dim, kValues))};
  launch(attention_kernel<kValues, kQueryTiles, kCopy>, grid, kThreads, shared, stream, a);
}

}  // namespace

size_t attention_scratch(const AttentionArgs*, int) { return 0; }

void attention(const AttentionArgs* args, WorkContext* work, int ith, int) {
  if (ith != 0) return;
  const AttentionArgs& a = *args;
  const bool wide = a.head_dim % 8 == 0 && a.q_stride % 8 == 0 && a.kv_stride % 8 == 0 && a.added_stride % 8 == 0;
  if (!wide) return launch_attention<64, 1, 2>(a, work->stream);
  if (a.head_dim <= 64) return launch_attention<64, 2, 8>(a, work->stream);
  if (a.head_dim <= 128) return launch_attention<128, 1, 8>(a, work->stream);
  launch_attention<256, 1, 8>(a, work->stream);
}

}  // namespace kandinsky::cuda
