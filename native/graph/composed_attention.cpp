// Attention of operations that ggml has.
#include "graph/composed_ops.h"

#include <algorithm>
#include <cmath>


namespace kandinsky {

namespace {

// Scores are made for some queries at a time where all of them would be too large (MoVQ: tokens = pixels). The number
// of parts is limited because LoadedNetwork::make_graph counts on it.
constexpr int64_t part_bytes = 128 << 20;
constexpr int64_t max_parts = 32;

/// {C, tokens, B} as {head width, tokens, heads, B}.
ggml_tensor* split_heads(ggml_context* c, ggml_tensor* x, int64_t heads) {
  return ggml_permute(c, ggml_reshape_4d(c, x, x->ne[0] / heads, heads, x->ne[1], x->ne[2]), 0, 2, 1, 3);
}

/// q: {d, queries, heads, B}; k: {d, keys, heads, B}; vt: {keys, d, heads, B}; returns {d * heads, queries, B}.
ggml_tensor* softmax_attention(Graph& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* vt, ggml_tensor* mask,
                               float scale) {
  ggml_context* c = g.context();
  ggml_tensor* scores = matrix_product(g, k, q);
  scores = ggml_soft_max_ext(c, scores, mask, scale, 0);
  ggml_tensor* y = matrix_product(g, vt, scores);
  y = ggml_cont(c, ggml_permute(c, y, 0, 2, 1, 3));
  return ggml_reshape_3d(c, y, y->ne[0] * y->ne[1], y->ne[2], y->ne[3]);
}

/// ggml's fused kernel, or null where the device has none for this head width.
ggml_tensor* flash_attention(Graph& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask, float scale) {
  ggml_context* c = g.context();
  ggml_tensor* mask_f16 = mask ? ggml_cast(c, mask, GGML_TYPE_F16) : nullptr;
  ggml_tensor* y = ggml_flash_attn_ext(c, q, ggml_cast(c, k, GGML_TYPE_F16), ggml_cast(c, v, GGML_TYPE_F16), mask_f16,
                                       scale, 0, 0);
  ggml_prec_set_acc(y, GGML_PREC_F32);
  if (!ggml_backend_supports_op(g.device().backend(), y)) return nullptr;
  return ggml_reshape_3d(c, y, y->ne[0] * y->ne[1], y->ne[2], y->ne[3]);
}

ggml_tensor* composed_attention(Graph& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, int64_t heads,
                                ggml_tensor* mask, float scale) {
  ggml_context* c = g.context();
  const int64_t queries = q->ne[1], keys = k->ne[1], batch = q->ne[2];
  // ggml's softmax repeats masks over heads and samples, but not over queries.
  if (mask && mask->ne[1] < queries) mask = ggml_repeat_4d(c, mask, keys, queries, mask->ne[2], mask->ne[3]);
  q = split_heads(c, q, heads);
  k = split_heads(c, k, heads);
  v = split_heads(c, v, heads);
  if (!g.device().is_cpu()) {
    if (ggml_tensor* fused = flash_attention(g, q, k, v, mask, scale)) return fused;
  }

  ggml_tensor* vt = ggml_cont(c, ggml_transpose(c, v));
  const int64_t row_bytes = keys * heads * batch * static_cast<int64_t>(sizeof(float));
  const int64_t part = std::max(std::max<int64_t>(1, part_bytes / row_bytes), (queries + max_parts - 1) / max_parts);
  if (part >= queries) return softmax_attention(g, q, k, vt, mask, scale);

  ggml_tensor* result = nullptr;
  for (int64_t first = 0; first < queries; first += part) {
    const int64_t count = std::min(part, queries - first);
    ggml_tensor* some =
        ggml_view_4d(c, q, q->ne[0], count, heads, batch, q->nb[1], q->nb[2], q->nb[3], first * q->nb[1]);
    ggml_tensor* some_mask = mask ? ggml_view_4d(c, mask, keys, count, mask->ne[2], mask->ne[3], mask->nb[1], mask->nb[2],
                                                 mask->nb[3], first * mask->nb[1])
                                  : nullptr;
    if (mask && mask->ne[2] * mask->ne[3] > 1) some_mask = ggml_cont(c, some_mask);  // as ggml_soft_max_ext wants it
    ggml_tensor* y = softmax_attention(g, some, k, vt, some_mask, scale);
    const int64_t channels = y->ne[0];
    if (first == 0) {
      // Makes room for the other parts; flat, because CUDA pads at most 65535 rows.
      ggml_tensor* flat = ggml_reshape_2d(c, y, channels * count, batch);
      flat = ggml_pad(c, flat, static_cast<int>(channels * (queries - count)), 0, 0, 0);
      result = ggml_reshape_3d(c, flat, channels, queries, batch);
    } else {
      ggml_tensor* place =
          ggml_view_3d(c, result, channels, count, batch, result->nb[1], result->nb[2], first * result->nb[1]);
      result = g.written(result, ggml_cpy(c, y, place));
    }
  }
  return result;
}

}  // namespace

Operand ComposedOps::attention(Graph& g, const AttentionInput& input) {
  ggml_context* c = g.context();
  const auto joined = [c](Operand added, Operand own) {
    return added ? ggml_concat(c, added.tensor, own.tensor, 1) : own.tensor;
  };
  ggml_tensor* k = joined(input.added.k, input.own.k);
  ggml_tensor* v = joined(input.added.v, input.own.v);
  const int64_t head_dim = input.q.tensor->ne[0] / input.heads;
  const float scale = input.is_scaled ? 1 / std::sqrt(static_cast<float>(head_dim)) : 1;
  return Operand(composed_attention(g, input.q.tensor, k, v, input.heads, input.mask, scale));
}

}  // namespace kandinsky
