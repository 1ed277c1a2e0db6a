// The matrix product on AMX: tile registers of 16 rows by 64 bytes, and one instruction that adds the product of two of
// them, 16 rows of 32 bfloat16 values times 16 columns, to a third. Words of a panel lie as that instruction wants them.
//
// Easy to get wrong: the rows of a tile are one address and a stride, while a product's rows may lie anywhere (at the end
// of an image's line they jump): such rows are copied side by side first. Rows that are not there must not be read: tiles
// of less than 16 are copied, too. And a row's result may not depend on the rows beside it (pictures computed in tiles are
// the same to the bit): vectors, which round in another order, take what is left of the inner dimension, of all rows, but
// never a few rows of their own.

constexpr int kTileRows = 16;
constexpr int kTilePairs = 16;   // of the inner dimension, per instruction
constexpr int kAliasing = 2048;  // bytes: rows a multiple of them apart compete for the same few cache sets
constexpr int kGroupRows = 2 * kTileRows;
constexpr int kInnerStep = 2 * kTilePairs;
constexpr int kMostColumns = 256;  // of the inner dimension: 32 rows of them, 16 KB, stay in the L1 cache beside half a panel

struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

/// For as long as a thread multiplies: the shapes of its tile registers, which belong to the thread, and their release,
/// without which every switch of threads would save 8 KB more.
struct MatrixUnit {
  INLINE_MEMBER MatrixUnit() {
    const TileShapes shapes;
    _tile_loadconfig(&shapes);
  }
  INLINE_MEMBER ~MatrixUnit() { _tile_release(); }
};

struct TileSource {
  const act_t* first;
  int64_t row_bytes;
};

/// Sums of 2 (or 1) x 2 (or 1) tiles over `steps` of the inner dimension. Registers 0 to 3 hold sums, 4 and 5 rows, 6 and 7
/// columns.
template <int R, int C>
static NOINLINE void multiply_registers(const TileSource* rows, const weight_t* panel, int steps, float* const* sums,
                                        int64_t sum_bytes, bool accumulate) {
  constexpr int64_t kColumnBytes = kPanel * 2 * sizeof(weight_t);
  if (accumulate) {
    _tile_loadd(0, sums[0], sum_bytes);
    if constexpr (C > 1) _tile_loadd(1, sums[0] + 16, sum_bytes);
    if constexpr (R > 1) _tile_loadd(2, sums[1], sum_bytes);
    if constexpr (R > 1 && C > 1) _tile_loadd(3, sums[1] + 16, sum_bytes);
  } else {
    _tile_zero(0);
    if constexpr (C > 1) _tile_zero(1);
    if constexpr (R > 1) _tile_zero(2);
    if constexpr (R > 1 && C > 1) _tile_zero(3);
  }
  const act_t* first = rows[0].first;
  const act_t* second = R > 1 ? rows[1].first : nullptr;
  for (int step = 0; step < steps; ++step) {
    _tile_loadd(6, panel, kColumnBytes);
    _tile_loadd(4, first, rows[0].row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (C > 1) {
      _tile_loadd(7, panel + 32, kColumnBytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (R > 1) {
      _tile_loadd(5, second, rows[1].row_bytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (C > 1) _tile_dpbf16ps(3, 5, 7);
    }
    first += 2 * kTilePairs;
    if constexpr (R > 1) second += 2 * kTilePairs;
    panel += 2 * kTilePairs * kPanel;
  }
  _tile_stored(0, sums[0], sum_bytes);
  if constexpr (C > 1) _tile_stored(1, sums[0] + 16, sum_bytes);
  if constexpr (R > 1) _tile_stored(2, sums[1], sum_bytes);
  if constexpr (R > 1 && C > 1) _tile_stored(3, sums[1] + 16, sum_bytes);
}

/// Up to kGroupRows rows that are multiplied by one or more panels, kMostColumns of the inner dimension at most. See
/// multiply_vectors.
struct RowGroup {
  const act_t* const* rows;
  int count;
  int64_t offset;
  int pairs;
  bool far;
  TileSource sources[2];
  alignas(64) act_t copies[2][kTileRows * kMostColumns];

  RowGroup(const act_t* const* rows, int count, int64_t offset, int pairs, bool far)
      : rows(rows), count(count), offset(offset), pairs(pairs), far(far) {
    if (pairs < kTilePairs) return;
    for (int i = 0; i * kTileRows < count; ++i) sources[i] = tile_source(i);
  }

  /// A tile's rows where they are, if they are 16 and evenly spaced, else copied.
  TileSource tile_source(int tile) {
    const act_t* const* of = rows + tile * kTileRows;
    const int size = min_of(kTileRows, count - tile * kTileRows);
    if (size == kTileRows) {
      const int64_t distance = of[1] - of[0];
      bool even = (distance * (int64_t)sizeof(act_t)) % kAliasing != 0;
      for (int r = 2; r < kTileRows; ++r) even &= of[r] - of[r - 1] == distance;
      if (even) return {of[0] + offset, distance * (int64_t)sizeof(act_t)};
    }
    for (int r = 0; r < size; ++r) memcpy(copies[tile] + r * kMostColumns, of[r] + offset, (size_t)pairs * 2 * sizeof(act_t));
    return {copies[tile], kMostColumns * sizeof(act_t)};
  }

  void multiply(const weight_t* panel, float* tile, bool accumulate, int columns) const {
    const int steps = pairs / kTilePairs, whole = steps * kTilePairs;
    if (steps) {
      alignas(64) float partial[kTileRows * kPanel];
      float* sums[2] = {tile, tile + kTileRows * kPanel};
      const int tiles = ceil_div(count, kTileRows), last = count % kTileRows;
      float* const end = sums[tiles - 1];
      if (last) {
        if (accumulate) memcpy(partial, end, (size_t)last * kPanel * sizeof(float));
        sums[tiles - 1] = partial;
      }
      const int end_column = min_of(columns, kPanel);
      for (int c = 0; c < end_column; c += 32) {
        float* const at[2] = {sums[0] + c, sums[1] + c};
        const auto product = tiles > 1 ? end_column - c > 16 ? multiply_registers<2, 2> : multiply_registers<2, 1>
                             : end_column - c > 16 ? multiply_registers<1, 2> : multiply_registers<1, 1>;
        product(sources, panel + 2 * c, steps, at, kPanel * sizeof(float), accumulate);
      }
      if (last) memcpy(end, partial, (size_t)last * kPanel * sizeof(float));
    }
    if (whole < pairs) {
      multiply_vectors(rows, count, offset + 2 * whole, panel + (int64_t)whole * 2 * kPanel, pairs - whole, tile,
                       accumulate || whole > 0, columns, far);
    }
  }
};
