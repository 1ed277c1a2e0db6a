#include "layers/norm.h"

#include "core/error.h"
#include "layers/resample.h"

namespace kandinsky {

ggml_tensor* LayerNorm::forward(Graph& g, ggml_tensor* x, bool is_operand) const {
  ggml_context* c = g.context();
  if (KernelNodes* nodes = g.kernels()) {
    LayerNormArgs args{};
    args.rows = static_cast<int>(ggml_nrows(x));
    args.features = static_cast<int>(x->ne[0]);
    args.eps = eps;
    args.gamma = static_cast<const float*>(weight->data);
    args.beta = static_cast<const float*>(bias->data);
    args.f32_dst = !is_operand;
    const int64_t width = is_operand ? even(args.features) : args.features;
    return nodes->add<LayerNormArgs>(
        c, nodes->kernels().layer_norm, args,
        {is_operand ? nodes->act_type() : GGML_TYPE_F32, {width, x->ne[1], x->ne[2], x->ne[3]}}, {x},
        [x](LayerNormArgs& a, ggml_tensor* y) {
          a.src = static_cast<const float*>(x->data);
          a.dst = y->data;
        });
  }
  return ggml_add(c, ggml_mul(c, ggml_norm(c, x, eps), weight), bias);
}

GroupNorm::GroupNorm(const Weights& w, int64_t channels, int groups, float eps)
    : weight(w["weight"].get({channels})), bias(w["bias"].get({channels})), groups(groups), eps(eps) {
  if (groups <= 0 || channels % groups != 0) {
    fail(ErrorCode::unsupported_model,
         "%s: expected a divisor of the %lld channels for norm_num_groups but received %d",
         w.where().c_str(), static_cast<long long>(channels), groups);
  }
}

ggml_tensor* GroupNorm::forward(Graph& g, ggml_tensor* x, const Then& then, const GroupStatistics* statistics) const {
  ggml_context* c = g.context();
  ggml_tensor* y = nullptr;
  if (statistics) {
    y = statistics->normalized(g, x, eps);
  } else {
    // ggml normalizes over dimensions 0, 1 and a range of dimension 2: there go the groups.
    y = ggml_reshape_4d(c, x, x->ne[0] / groups, groups, x->ne[1] * x->ne[2], x->ne[3]);
    y = ggml_cont(c, ggml_permute(c, y, 0, 2, 1, 3));
    y = ggml_group_norm(c, y, groups, eps);
    y = ggml_cont(c, ggml_permute(c, y, 0, 2, 1, 3));
  }
  y = ggml_reshape_4d(c, y, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
  y = ggml_add(c, ggml_mul(c, y, weight), bias);
  if (then.scale) y = ggml_add(c, ggml_mul(c, y, ggml_scale_bias(c, then.scale, 1, 1)), then.shift);
  return then.silu ? ggml_silu(c, y) : y;
}

void GroupStatistics::add(Graph& g, ggml_tensor* part) {
  if (KernelNodes* nodes = g.kernels()) {
    PrepareArgs args{};
    args.channels[0] = static_cast<int>(part->ne[0]);
    args.batch = 1;
    args.width = static_cast<int>(part->ne[1]);
    args.height = static_cast<int>(part->ne[2]);
    args.groups = groups_;
    ggml_tensor* before = sums_;
    sums_ = nodes->add<PrepareArgs>(
        g.context(), nodes->kernels().group_sums, args, {GGML_TYPE_F64, {2, groups_, 1, 1}}, {part, before},
        [part, before](PrepareArgs& a, ggml_tensor* sums) {
          a.src[0] = static_cast<const float*>(part->data);
          a.sums = before ? static_cast<const double*>(before->data) : nullptr;
          a.dst = sums->data;
        });
    g.schedule(sums_);
  } else {
    add_composed(g, part);
    g.schedule(mean_);
    g.schedule(squares_);
  }
  pixels_ += part->ne[1] * part->ne[2];
}

/// Parts are joined as in https://doi.org/10.1080/00031305.1983.10483115 (Chan, Golub, LeVeque): in float32 the
/// difference of a mean of squares and a squared mean would have no digits left where the variance is small.
void GroupStatistics::add_composed(Graph& g, ggml_tensor* part) {
  ggml_context* c = g.context();
  const int64_t channels = part->ne[0], pixels = part->ne[1] * part->ne[2];
  ggml_tensor* x = ggml_cont(c, ggml_transpose(c, ggml_reshape_2d(c, part, channels, pixels)));
  x = ggml_reshape_2d(c, x, channels / groups_ * pixels, groups_);
  ggml_tensor* mean = ggml_mean(c, x);
  ggml_tensor* squares = ggml_sum_rows(c, ggml_sqr(c, ggml_sub(c, x, mean)));
  if (pixels_ > 0) {
    const double share = static_cast<double>(pixels) / (pixels_ + pixels);
    const double weight = share * pixels_ * (channels / groups_);
    ggml_tensor* difference = ggml_sub(c, mean, mean_);
    ggml_tensor* between = ggml_scale(c, ggml_sqr(c, difference), static_cast<float>(weight));
    mean = ggml_add(c, mean_, ggml_scale(c, difference, static_cast<float>(share)));
    squares = ggml_add(c, ggml_add(c, squares_, squares), between);
  }
  mean_ = mean;
  squares_ = squares;
}

ggml_tensor* GroupStatistics::normalized(Graph& g, ggml_tensor* part, float eps) const {
  ggml_context* c = g.context();
  const int64_t size = part->ne[0] / groups_, pixels = part->ne[1] * part->ne[2];
  ggml_tensor* y = ggml_sub(c, ggml_reshape_3d(c, part, size, groups_, pixels), mean_);
  const float per_value = static_cast<float>(1.0 / (pixels_ * size));
  return ggml_div(c, y, ggml_sqrt(c, ggml_scale_bias(c, squares_, per_value, eps)));
}

Norm2d::Norm2d(const Weights& w, int64_t channels, const Options& options) : is_spatial(options.zq_channels > 0) {
  if (!is_spatial) {
    norm = GroupNorm(w, channels, options.groups, options.eps);
    return;
  }
  norm = GroupNorm(w["norm_layer"], channels, 32, 1e-6f);
  conv_y = Conv2d(w["conv_y"], options.zq_channels, channels, 1);
  conv_b = Conv2d(w["conv_b"], options.zq_channels, channels, 1);
}

ggml_tensor* Norm2d::forward(Graph& g, ggml_tensor* x, ggml_tensor* zq, const GroupNorm::Then& then,
                             const GroupStatistics* statistics) const {
  if (!is_spatial) return norm.forward(g, x, then, statistics);
  ggml_context* c = g.context();
  // A 1x1 convolution commutes with nearest-neighbour enlarging: both run at latent size. Only rows are then repeated;
  // columns are broadcast by the product and sum, so that nothing of the size of x is made.
  const int64_t channels = x->ne[0], w = zq->ne[1], rows = x->ne[2] * x->ne[3];
  const auto enlarge = [&](ggml_tensor* t) {
    return ggml_reshape_4d(c, nearest_resize(g, t, w, x->ne[2]), channels, 1, w, rows);
  };
  ggml_tensor* y = ggml_reshape_4d(c, norm.forward(g, x, {}, statistics), channels, x->ne[1] / w, w, rows);
  y = ggml_mul(c, y, enlarge(conv_y.forward(g, zq)));
  y = ggml_add(c, y, enlarge(conv_b.forward(g, zq)));
  if (then.silu) y = ggml_silu(c, y);
  return ggml_reshape_4d(c, y, channels, x->ne[1], x->ne[2], x->ne[3]);
}

}  // namespace kandinsky
