// The matrix product inside everything: up to kRows rows of activations times one panel of packed weights.
//
// A panel holds kPanel out channels. With bfloat16 weights it is [pairs of input channels][kPanel][2], so that one
// vector load brings, for kLanes out channels, two consecutive input channels, which is what a bfloat16 dot product
// takes and what a shift and a mask widen where there is none. With float32 weights it is [input channels][kPanel].
// Sums stay in registers over `pairs`, then go to a tile of kPanel columns.

constexpr int kRows = 6;
constexpr int kPanel = kVectors * kLanes;
// Loads may not move across this. Left alone, GCC 12 hoists a step's broadcasts above its products, runs out of
// registers and keeps sums on the stack, at half the speed; scripts/check-spills.mjs looks for that.
#define KEEP_ORDER() __asm__ volatile("" ::: "memory")

constexpr int kBlockPairs = 128;  // weights of one pass: 128 pairs x 64 columns x 4 B = 32 KB stay in the L1 cache

#if defined(WEIGHTS_F32)
INLINE vf first_of_pair(const float* panel, int v) { return vload(panel + v * kLanes); }
INLINE vf second_of_pair(const float* panel, int v) { return vload(panel + kPanel + v * kLanes); }
#elif !defined(ACT_BF16)
INLINE vf first_of_pair(const uint16_t* panel, int v) { return vlow_half(panel + v * kLanes * 2); }
INLINE vf second_of_pair(const uint16_t* panel, int v) { return vhigh_half(panel + v * kLanes * 2); }
#endif

template <int R, int V>
static NOINLINE void multiply_tile(const act_t* const* rows, int64_t offset, const weight_t* panel, int pairs,
                                   float* tile, bool accumulate) {
  const act_t* a[R];
  vf sum[R][V];
  UNROLL for (int r = 0; r < R; ++r) a[r] = rows[r] + offset;
  if (accumulate) {
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int v = 0; v < V; ++v) sum[r][v] = vload(tile + r * kPanel + v * kLanes);
    }
  } else {
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int v = 0; v < V; ++v) sum[r][v] = vzero();
    }
  }
  for (int p = 0; p < pairs; ++p) {
    UNROLL for (int line = 0; line < V * kLanes * 2 * (int)sizeof *panel / 64; ++line) {
      __builtin_prefetch((const char*)panel + 2048 + line * 64);
    }
#ifdef ACT_BF16
    vb b[V];
    UNROLL for (int v = 0; v < V; ++v) b[v] = bload(panel + v * kLanes * 2);
    UNROLL for (int r = 0; r < R; ++r) {
      KEEP_ORDER();
      const vb x = broadcast_pair(a[r] + 2 * p);
      UNROLL for (int v = 0; v < V; ++v) sum[r][v] = vdot(sum[r][v], x, b[v]);
    }
#else
    vf b[V];
    UNROLL for (int v = 0; v < V; ++v) b[v] = first_of_pair(panel, v);
    UNROLL for (int r = 0; r < R; ++r) {
      KEEP_ORDER();
      const vf x = vset1(a[r][2 * p]);
      UNROLL for (int v = 0; v < V; ++v) add_product(sum[r][v], x, b[v]);
    }
    KEEP_ORDER();
    UNROLL for (int v = 0; v < V; ++v) b[v] = second_of_pair(panel, v);
    UNROLL for (int r = 0; r < R; ++r) {
      KEEP_ORDER();
      const vf x = vset1(a[r][2 * p + 1]);
      UNROLL for (int v = 0; v < V; ++v) add_product(sum[r][v], x, b[v]);
    }
#endif
    panel += kPanel * 2;
  }
  UNROLL for (int r = 0; r < R; ++r) {
    UNROLL for (int v = 0; v < V; ++v) vstore(tile + r * kPanel + v * kLanes, sum[r][v]);
  }
}

/// Brings the next rows of a tile into the cache: short runs far apart, which the hardware does not foresee.
INLINE void prefetch_rows(const act_t* const* rows, int count, int64_t offset, int pairs) {
  for (int r = 0; r < count; ++r) {
    const char* line = (const char*)(rows[r] + offset);
    for (int b = 0; b < pairs * 2 * (int)sizeof(act_t); b += 64) __builtin_prefetch(line + b);
  }
}

/// tile[count][kPanel] (+)= rows[count][2 * pairs] * panel. Only the first `columns` columns are computed, up to a
/// vector. `far` says that the rows are not in the L2 cache (fetching them ahead costs 2 % where they are, and saves
/// 10 % else).
static void multiply_vectors(const act_t* const* rows, int count, int64_t offset, const weight_t* panel, int pairs,
                             float* tile, bool accumulate, int columns, bool far) {
  using Tile = void (*)(const act_t* const*, int64_t, const weight_t*, int, float*, bool);
  static const Tile wide[kRows] = {multiply_tile<1, kVectors>, multiply_tile<2, kVectors>, multiply_tile<3, kVectors>,
                                   multiply_tile<4, kVectors>, multiply_tile<5, kVectors>, multiply_tile<6, kVectors>};
  static const Tile narrow[kRows] = {multiply_tile<1, 1>, multiply_tile<2, 1>, multiply_tile<3, 1>,
                                     multiply_tile<4, 1>, multiply_tile<5, 1>, multiply_tile<6, 1>};
  const Tile* tiles = columns > kLanes ? wide : narrow;
  for (int done = 0; done < pairs; done += kBlockPairs) {
    const int block = min_of(kBlockPairs, pairs - done);
    for (int r = 0; r < count; r += kRows) {
      const int next = r + kRows;
      if (far && next < count) prefetch_rows(rows + next, min_of(kRows, count - next), offset + 2 * done, block);
      tiles[min_of(kRows, count - r) - 1](rows + r, offset + 2 * done, panel + (int64_t)done * 2 * kPanel, block,
                                          tile + (int64_t)r * kPanel, accumulate || done > 0);
    }
  }
}

#ifdef MATRIX_UNIT
#include "kernels/cpu/multiply_amx.h"
#else
constexpr int kGroupRows = 1 << 20, kMostColumns = 1 << 20, kInnerStep = 2;

/// What a thread that multiplies must hold meanwhile.
struct MatrixUnit {
  INLINE_MEMBER MatrixUnit() {}
};

/// Rows that are multiplied by one or more panels; see multiply_vectors.
struct RowGroup {
  const act_t* const* rows;
  int count;
  int64_t offset;
  int pairs;
  bool far;

  INLINE_MEMBER RowGroup(const act_t* const* rows, int count, int64_t offset, int pairs, bool far)
      : rows(rows), count(count), offset(offset), pairs(pairs), far(far) {}

  INLINE_MEMBER void multiply(const weight_t* panel, float* tile, bool accumulate, int columns) const {
    multiply_vectors(rows, count, offset, panel, pairs, tile, accumulate, columns, far);
  }
};
#endif

/// All `count` rows times one panel.
static void multiply(const act_t* const* rows, int count, int64_t offset, const weight_t* panel, int pairs, float* tile,
                     bool accumulate, int columns, bool far) {
  for (int done = 0; done < pairs; done += kMostColumns / 2) {
    const int some = min_of(kMostColumns / 2, pairs - done);
    for (int r = 0; r < count; r += kGroupRows) {
      const RowGroup group(rows + r, min_of(kGroupRows, count - r), offset + 2 * done, some, far);
      group.multiply(panel + (int64_t)done * 2 * kPanel, tile + (int64_t)r * kPanel, accumulate || done > 0, columns);
    }
  }
}
