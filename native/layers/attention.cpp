#include "layers/attention.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "layers/prepare.h"

namespace kandinsky {

namespace {

// Scores are made for some queries at a time where all of them would be too large (MoVQ: tokens = pixels). The number
// of parts is limited because LoadedNetwork::make_graph counts on it.
constexpr int64_t part_bytes = 128 << 20;
constexpr int64_t max_parts = 32;

float attention_scale(int64_t head_dim) { return 1 / std::sqrt(static_cast<float>(head_dim)); }

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

ggml_tensor* attention_node(Graph& g, ggml_tensor* q, const KeysValues& own, int64_t heads, ggml_tensor* mask,
                            const KeysValues& added) {
  KernelNodes& nodes = *g.kernels();
  AttentionArgs args{};
  args.q_stride = args.dst_stride = q->ne[0];
  args.kv_stride = own.k->ne[0];
  args.batch = static_cast<int>(q->ne[2]);
  args.heads = static_cast<int>(heads);
  args.head_dim = static_cast<int>(q->ne[0] / heads);
  args.queries = static_cast<int>(q->ne[1]);
  args.tokens = static_cast<int>(own.k->ne[1]);
  if (added.k) {
    args.added_stride = added.k->ne[0];
    args.added_tokens = static_cast<int>(added.k->ne[1]);
  }
  args.scale = attention_scale(args.head_dim);
  if (mask && mask->ne[3] > 1) args.mask_stride = mask->ne[0] * mask->ne[1];
  const auto data = [](const ggml_tensor* tensor) { return tensor ? tensor->data : nullptr; };
  return nodes.add<AttentionArgs>(g.context(), nodes.kernels().attention, args,
                                  {nodes.act_type(), {q->ne[0], q->ne[1], q->ne[2], 1}},
                                  {q, own.k, own.v, added.k, added.v, mask}, [=](AttentionArgs& a, ggml_tensor* y) {
                                    a.q = data(q);
                                    a.k = data(own.k);
                                    a.v = data(own.v);
                                    a.added_k = data(added.k);
                                    a.added_v = data(added.v);
                                    a.mask = static_cast<const float*>(data(mask));
                                    a.dst = y->data;
                                  });
}

/// Of ggml's own operations.
ggml_tensor* composed_attention(Graph& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, int64_t heads,
                                ggml_tensor* mask) {
  ggml_context* c = g.context();
  const int64_t queries = q->ne[1], keys = k->ne[1], batch = q->ne[2];
  const float scale = attention_scale(q->ne[0] / heads);
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
    ggml_tensor* some_mask = mask ? ggml_view_4d(c, mask, keys, count, 1, mask->ne[3], mask->nb[1], mask->nb[2],
                                                 mask->nb[3], first * mask->nb[1])
                                  : nullptr;
    if (mask && mask->ne[3] > 1) some_mask = ggml_cont(c, some_mask);  // as ggml_soft_max_ext wants it
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

bool attention_takes_operands(const Graph& g, int64_t head_dim) { return g.kernels() && head_dim % 2 == 0; }

ggml_tensor* attention(Graph& g, ggml_tensor* q, const KeysValues& own, int64_t heads, ggml_tensor* mask,
                       const KeysValues& added) {
  if (attention_takes_operands(g, q->ne[0] / heads)) return attention_node(g, q, own, heads, mask, added);
  ggml_context* c = g.context();
  ggml_tensor* k = added.k ? ggml_concat(c, added.k, own.k, 1) : own.k;
  ggml_tensor* v = added.v ? ggml_concat(c, added.v, own.v, 1) : own.v;
  return composed_attention(g, q, k, v, heads, mask);
}

Attention::Attention(const Weights& w, const Names& names, int64_t channels, int64_t heads)
    : to_q(w[names.q], channels, channels),
      to_k(w[names.k], channels, channels),
      to_v(w[names.v], channels, channels),
      to_out(w[names.out], channels, channels),
      heads(heads) {
  if (heads <= 0 || channels % heads != 0) {
    fail(ErrorCode::unsupported_model,
         "%s: expected a divisor of the %lld channels for the number of attention heads but received %lld",
         w.where().c_str(), static_cast<long long>(channels), static_cast<long long>(heads));
  }
}

ggml_tensor* Attention::forward(Graph& g, ggml_tensor* x, ggml_tensor* mask, const KeysValues& added,
                                ggml_tensor* residual, KeysValues* own) const {
  const Epilogue epilogue{Activation::none, nullptr, attention_takes_operands(g, to_q.weight->ne[1] / heads)};
  x = operand(g, x);
  ggml_tensor* q = to_q.forward(g, x, epilogue);
  const KeysValues of_x{to_k.forward(g, x, epilogue), to_v.forward(g, x, epilogue)};
  if (own) *own = of_x;
  return to_out.forward(g, kandinsky::attention(g, q, of_x, heads, mask, added), {Activation::none, residual, false});
}

ImageAttention::ImageAttention(const Weights& w, int64_t channels, const Options& options)
    : norm(w[options.norm.zq_channels > 0 ? "spatial_norm" : "group_norm"], channels, options.norm),
      attention(w, Attention::diffusers_names, channels, options.heads),
      has_context(options.context_channels > 0) {
  if (!has_context) return;
  add_k_proj = Linear(w["add_k_proj"], options.context_channels, channels);
  add_v_proj = Linear(w["add_v_proj"], options.context_channels, channels);
}

ggml_tensor* ImageAttention::forward(Graph& g, ggml_tensor* x, ggml_tensor* context, ggml_tensor* zq) const {
  ggml_context* c = g.context();
  ImageInput input(x);
  input.norm = &norm;
  input.zq = zq;
  const auto as_tokens = [&](ggml_tensor* image) {
    return ggml_reshape_3d(c, image, image->ne[0], image->ne[1] * image->ne[2], image->ne[3]);
  };
  KeysValues added;
  if (has_context) {
    const Epilogue epilogue{Activation::none, nullptr, attention_takes_operands(g, x->ne[0] / attention.heads)};
    added = {g.keep(add_k_proj.forward(g, context, epilogue)), g.keep(add_v_proj.forward(g, context, epilogue))};
  }
  ggml_tensor* y = attention.forward(g, as_tokens(image_operand(g, input, 0)), nullptr, added, as_tokens(x));
  return ggml_reshape_4d(c, y, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}

}  // namespace kandinsky
