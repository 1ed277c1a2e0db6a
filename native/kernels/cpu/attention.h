// Flash attention (Dao et al. 2022): a block of queries walks over blocks of keys with a running maximum and sum, so
// that no score matrix exists. Keys and values are first repacked, once per head, as panels of the matrix product:
// keys with the head dimension inside, values with the keys inside. Added keys (the image or text context) come first.

constexpr int kQueryBlock = 48;
constexpr int kKeyBlock = 64;
static_assert(kKeyBlock % kPanel == 0, "a block of keys is whole panels");

struct Attention {
  const AttentionArgs* args;
  int keys, key_blocks, panels;  // panels of the head dimension
  int64_t key_size, value_size;  // weights per head
  weight_t *packed_keys, *packed_values;
};

struct AttentionScratch {
  float* scores;  // [kQueryBlock][kKeyBlock] as kKeyBlock / kPanel tiles
  act_t* weights;  // [kQueryBlock][kKeyBlock]: exp(score - maximum)
  float* sums;     // [panels][kQueryBlock][kPanel]
  float *maximum, *total;  // [kQueryBlock]
};

INLINE Attention attention_layout(const AttentionArgs* args, Arena& arena) {
  Attention t = {};
  t.args = args;
  t.keys = args->added_tokens + args->tokens;
  t.key_blocks = ceil_div(t.keys, kKeyBlock);
  t.panels = ceil_div(args->head_dim, kPanel);
  t.key_size = (int64_t)t.key_blocks * kKeyBlock * args->head_dim;
  t.value_size = (int64_t)t.key_blocks * kKeyBlock * t.panels * kPanel;
  t.packed_keys = arena.take<weight_t>(t.key_size * args->batch * args->heads);
  t.packed_values = arena.take<weight_t>(t.value_size * args->batch * args->heads);
  return t;
}

INLINE AttentionScratch attention_scratch_of_thread(Arena& arena, const Attention& t) {
  AttentionScratch s = {};
  s.scores = arena.take<float>(kQueryBlock * kKeyBlock);
  s.weights = arena.take<act_t>(kQueryBlock * kKeyBlock);
  s.sums = arena.take<float>((size_t)t.panels * kQueryBlock * kPanel);
  s.maximum = arena.take<float>(kQueryBlock);
  s.total = arena.take<float>(kQueryBlock);
  return s;
}

static size_t attention_scratch(const AttentionArgs* args, int nth) {
  Arena arena{nullptr, 0};
  const Attention t = attention_layout(args, arena);
  for (int i = 0; i < nth; ++i) attention_scratch_of_thread(arena, t);
  return arena.used;
}

/// Key (or value) `index` of a head, added ones first; null beyond the last.
INLINE const act_t* key_row(const Attention& t, const void* added, const void* own, int batch, int head, int index) {
  const AttentionArgs& a = *t.args;
  const int64_t column = (int64_t)head * a.head_dim;
  if (index < a.added_tokens) {
    return (const act_t*)added + ((int64_t)batch * a.added_tokens + index) * a.added_stride + column;
  }
  if (index >= t.keys) return nullptr;
  return (const act_t*)own + ((int64_t)batch * a.tokens + index - a.added_tokens) * a.kv_stride + column;
}

/// Elements of one key or value as weights; writes whole vectors.
INLINE void narrow_keys(const act_t* row, int count, weight_t* dst) {
  for (int i = 0; i < count; i += kLanes) {
    const int lanes = min_of(kLanes, count - i);
    if (lanes == kLanes) {
      narrow(dst + i, aload(row + i));
    } else {
      act_t part[kLanes] = {0};
      for (int j = 0; j < lanes; ++j) part[j] = row[i + j];
      narrow(dst + i, aload(part));
    }
  }
}

/// One block of a head's keys: kKeyBlock / kPanel panels [head_dim / kWordValues][kPanel][kWordValues].
static void pack_keys(const Attention& t, int batch, int head, int block, weight_t* dst) {
  const int dim = t.args->head_dim;
  for (int n0 = 0; n0 < kKeyBlock; n0 += kPackRows) {
    uint32_t* out = (uint32_t*)(dst + (int64_t)(n0 / kPanel) * dim * kPanel) + n0 % kPanel;
    PackBlock words = {};
    for (int k = 0; k < dim; k += kBlockValues) {
      const int count = min_of(kBlockValues, dim - k);
      for (int n = 0; n < kPackRows; ++n) {
        const act_t* row = key_row(t, t.args->added_k, t.args->k, batch, head, block * kKeyBlock + n0 + n);
        weight_t part[kBlockValues + kLanes] = {0};
        if (row) narrow_keys(row + k, count, part);
        memcpy(words[n], part, sizeof words[n]);
      }
      turn_block(words, ceil_div(count, kWordValues), out + (int64_t)(k / kWordValues) * kPanel);
    }
  }
}

/// One block of a head's values: `panels` panels whose words hold the values of kWordValues keys.
static void pack_values(const Attention& t, int batch, int head, int block, weight_t* dst) {
  const int dim = t.args->head_dim;
  for (int n = 0; n < kKeyBlock; ++n) {
    const act_t* row = key_row(t, t.args->added_v, t.args->v, batch, head, block * kKeyBlock + n);
    for (int panel = 0; panel < t.panels; ++panel) {
      weight_t values[kPanel + kLanes] = {0};
      if (row) narrow_keys(row + panel * kPanel, min_of(kPanel, dim - panel * kPanel), values);
      weight_t* out = dst + ((int64_t)panel * kKeyBlock + n / kWordValues * kWordValues) * kPanel + n % kWordValues;
      for (int k = 0; k < kPanel; ++k) out[k * kWordValues] = values[k];
    }
  }
}

/// Scores of one query against a block of keys become weights; rescales what this query has summed so far.
static NOINLINE void softmax_row(const Attention& t, const AttentionScratch& s, int row, const float* mask, int count) {
  const vf scale = vset1(t.args->scale * kLog2e);
  vf x[kKeyBlock / kLanes], top = vset1(-1e30f);
  for (int i = 0; i < kKeyBlock / kLanes; ++i) {
    const int c = i * kLanes;
    x[i] = vmul(vload(s.scores + (c / kPanel * kQueryBlock + row) * kPanel + c % kPanel), scale);
    if (mask && c < count) x[i] = vfma(vload_part(mask + c, count - c), vset1(kLog2e), x[i]);
    if (c + kLanes > count) {
      float lanes[kLanes];
      vstore(lanes, x[i]);
      for (int j = max_of(count - c, 0); j < kLanes; ++j) lanes[j] = -1e30f;
      x[i] = vload(lanes);
    }
    top = vmax(top, x[i]);
  }
  const float before = s.maximum[row], maximum = vmaximum(top) > before ? vmaximum(top) : before;
  vf total = vzero();
  for (int i = 0; i < kKeyBlock / kLanes; ++i) {
    const vf weight = vexp2(vsub(x[i], vset1(maximum)));
    total = vadd(total, weight);
    astore(s.weights + row * kKeyBlock + i * kLanes, weight);
  }
  s.maximum[row] = maximum;
  if (maximum == before) {
    s.total[row] += vsum(total);
    return;
  }
  float shrink[kLanes];
  vstore(shrink, vexp2(vset1(before - maximum)));
  s.total[row] = s.total[row] * shrink[0] + vsum(total);
  for (int panel = 0; panel < t.panels; ++panel) {
    float* sums = s.sums + ((int64_t)panel * kQueryBlock + row) * kPanel;
    for (int c = 0; c < kPanel; c += kLanes) vstore(sums + c, vmul(vload(sums + c), vset1(shrink[0])));
  }
}

/// Up to kQueryBlock queries of one head over all keys.
static void attend(const Attention& t, const AttentionScratch& s, int batch, int head, int first, int count) {
  const AttentionArgs& a = *t.args;
  const int64_t pair = (int64_t)batch * a.heads + head;
  const act_t *queries[kQueryBlock], *weights[kQueryBlock];
  for (int r = 0; r < count; ++r) {
    queries[r] = (const act_t*)a.q + ((int64_t)batch * a.queries + first + r) * a.q_stride + (int64_t)head * a.head_dim;
    weights[r] = s.weights + r * kKeyBlock;
    s.maximum[r] = -1e30f;
    s.total[r] = 0;
  }
  memset(s.sums, 0, (size_t)t.panels * kQueryBlock * kPanel * sizeof(float));
  for (int block = 0; block < t.key_blocks; ++block) {
    const int keys = min_of(kKeyBlock, t.keys - block * kKeyBlock);
    const weight_t* k = t.packed_keys + pair * t.key_size + (int64_t)block * kKeyBlock * a.head_dim;
    for (int panel = 0; panel < kKeyBlock / kPanel; ++panel) {
      multiply(queries, count, 0, k + (int64_t)panel * a.head_dim * kPanel, a.head_dim / 2,
               s.scores + panel * kQueryBlock * kPanel, false, kPanel, false);
    }
    for (int r = 0; r < count; ++r) {
      const int64_t masked = batch * a.mask_stride + head * a.mask_head_stride + (first + r) * a.mask_query_stride + block * kKeyBlock;
      softmax_row(t, s, r, a.mask ? a.mask + masked : nullptr, keys);
    }
    const weight_t* v = t.packed_values + pair * t.value_size + (int64_t)block * kKeyBlock * t.panels * kPanel;
    for (int panel = 0; panel < t.panels; ++panel) {
      multiply(weights, count, 0, v + (int64_t)panel * kKeyBlock * kPanel, (keys + 1) / 2,
               s.sums + (int64_t)panel * kQueryBlock * kPanel, true, a.head_dim - panel * kPanel, false);
    }
  }
  for (int r = 0; r < count; ++r) {
    const int64_t index = ((int64_t)batch * a.queries + first + r) * a.dst_stride + (int64_t)head * a.head_dim;
    const vf inverse = vset1(1 / s.total[r]);
    for (int c = 0; c < a.head_dim; c += kLanes) {
      const vf sum = vload(s.sums + ((int64_t)(c / kPanel) * kQueryBlock + r) * kPanel + c % kPanel);
      store_as(a.f32_dst, a.dst, index + c, vmul(sum, inverse), min_of(kLanes, a.head_dim - c));
    }
  }
}

static void attention(const AttentionArgs* args, WorkContext* work, int ith, int nth) {
  Arena arena{work->scratch, 0};
  const Attention t = attention_layout(args, arena);
  AttentionScratch s = {};
  for (int i = 0; i <= ith; ++i) s = attention_scratch_of_thread(arena, t);
  const int pairs = args->batch * args->heads;
  for (int task; (task = take_task(work)) < pairs * t.key_blocks;) {
    const int pair = task / t.key_blocks, block = task % t.key_blocks;
    const int batch = pair / args->heads, head = pair % args->heads;
    pack_keys(t, batch, head, block, t.packed_keys + pair * t.key_size + (int64_t)block * kKeyBlock * args->head_dim);
    pack_values(t, batch, head, block,
                t.packed_values + pair * t.value_size + (int64_t)block * kKeyBlock * t.panels * kPanel);
  }
  barrier(work, nth);
  const int blocks = ceil_div(args->queries, kQueryBlock);
  const MatrixUnit unit;
  for (int task; (task = take_task(work)) < pairs * blocks;) {
    const int pair = task / blocks, first = task % blocks * kQueryBlock;
    attend(t, s, pair / args->heads, pair % args->heads, first, min_of(kQueryBlock, args->queries - first));
  }
  barrier(work, nth);
}
