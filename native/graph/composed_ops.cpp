#include "graph/composed_ops.h"

#include "graph/activation.h"
#include "graph/resample.h"

namespace kandinsky {

namespace {

/// A part of an image with mean 0 and variance 1 in each group of the image's channels.
ggml_tensor* normalized_part(Graph& g, const GroupStatistics& statistics, ggml_tensor* part, float eps) {
  ggml_context* c = g.context();
  const int64_t groups = statistics.groups, size = part->ne[0] / groups, pixels = part->ne[1] * part->ne[2];
  ggml_tensor* y = ggml_sub(c, ggml_reshape_3d(c, part, size, groups, pixels), statistics.mean);
  const float per_value = static_cast<float>(1.0 / (statistics.pixels * size));
  return ggml_div(c, y, ggml_sqrt(c, ggml_scale_bias(c, statistics.squares, per_value, eps)));
}

ggml_tensor* normalized_image(Graph& g, ggml_tensor* x, int groups, float eps) {
  ggml_context* c = g.context();
  // ggml normalizes over dimensions 0, 1 and a range of dimension 2: there go the groups.
  ggml_tensor* y = ggml_reshape_4d(c, x, x->ne[0] / groups, groups, x->ne[1] * x->ne[2], x->ne[3]);
  y = ggml_cont(c, ggml_permute(c, y, 0, 2, 1, 3));
  y = ggml_group_norm(c, y, groups, eps);
  return ggml_cont(c, ggml_permute(c, y, 0, 2, 1, 3));
}

/// Only rows are repeated; columns are broadcast by the product and sum, so that nothing of the size of x is made.
ggml_tensor* spatially_modulated(Graph& g, ggml_tensor* x, ggml_tensor* scale, ggml_tensor* shift) {
  ggml_context* c = g.context();
  const int64_t channels = x->ne[0], w = scale->ne[1], rows = x->ne[2] * x->ne[3];
  const auto enlarge = [&](ggml_tensor* t) {
    return ggml_reshape_4d(c, nearest_resize(g, t, w, x->ne[2]), channels, 1, w, rows);
  };
  ggml_tensor* y = ggml_reshape_4d(c, x, channels, x->ne[1] / w, w, rows);
  y = ggml_add(c, ggml_mul(c, y, enlarge(scale)), enlarge(shift));
  return ggml_reshape_4d(c, y, channels, x->ne[1], x->ne[2], x->ne[3]);
}

ggml_tensor* group_norm(Graph& g, ggml_tensor* x, const GroupNormalization& norm) {
  ggml_context* c = g.context();
  ggml_tensor* y = norm.statistics ? normalized_part(g, *norm.statistics, x, norm.eps)
                                   : normalized_image(g, x, norm.groups, norm.eps);
  y = ggml_reshape_4d(c, y, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
  if (norm.gamma) y = ggml_add(c, ggml_mul(c, y, norm.gamma), norm.beta);
  return norm.spatial_scale ? spatially_modulated(g, y, norm.spatial_scale, norm.spatial_shift) : y;
}

/// scale_shift: {2 C, B}
ggml_tensor* modulated(Graph& g, ggml_tensor* x, ggml_tensor* scale_shift) {
  ggml_context* c = g.context();
  const size_t stride = scale_shift->nb[1];
  const auto half = [&](size_t offset) {
    return ggml_cont(c, ggml_view_4d(c, scale_shift, x->ne[0], 1, 1, x->ne[3], stride, stride, stride, offset));
  };
  ggml_tensor* scale = half(0);
  ggml_tensor* shift = half(x->ne[0] * sizeof(float));
  return ggml_add(c, ggml_mul(c, x, ggml_scale_bias(c, scale, 1, 1)), shift);
}

}  // namespace

ggml_tensor* matrix_product(Graph& g, ggml_tensor* weight, ggml_tensor* rows) {
  ggml_tensor* product = ggml_mul_mat(g.context(), weight, rows);
  // CUDA would accumulate products with float16 weights in float16.
  ggml_prec_set_acc(product, GGML_PREC_F32);
  return product;
}

Operand ComposedOps::operand(Graph& g, ggml_tensor* x, bool silu) {
  if (x->type != GGML_TYPE_F32) x = ggml_cast(g.context(), x, GGML_TYPE_F32);
  return Operand(silu ? ggml_silu(g.context(), x) : x);
}

Operand ComposedOps::image_operand(Graph& g, const ImageInput& input) { return Operand(image(g, input)); }

ggml_tensor* ComposedOps::image(Graph& g, const ImageInput& in) {
  ggml_tensor* y = in.image.x;  // nothing is beside it: side_by_side() made one image
  if (in.norm) y = group_norm(g, y, *in.norm);
  if (in.scale_shift) y = modulated(g, y, in.scale_shift);
  if (in.silu) y = ggml_silu(g.context(), y);
  if (in.resample == Resample::nearest_2x) return nearest_resize(g, y, 2 * y->ne[1], 2 * y->ne[2]);
  return in.resample == Resample::avg_pool_2x2 ? average_pool_2x2(g, y) : y;
}

Image ComposedOps::side_by_side(Graph& g, ggml_tensor* x, ggml_tensor* beside) {
  return ggml_concat(g.context(), x, beside, 0);
}

ggml_tensor* ComposedOps::linear(Graph& g, const Product& product, Operand operand, Activation activation,
                                 ggml_tensor* residual) {
  ggml_context* c = g.context();
  ggml_tensor* x = operand.tensor;
  // One product of two matrices instead of one for each batch element.
  ggml_tensor* y = matrix_product(g, product.weight, ggml_reshape_2d(c, x, x->ne[0], ggml_nrows(x)));
  if (product.bias) y = ggml_add(c, y, product.bias);
  if (ggml_tensor* added = with_added(g, product.weight, Operand(ggml_reshape_2d(c, x, x->ne[0], ggml_nrows(x))), nullptr))
    y = ggml_add(c, y, added);
  y = activate(g, activation, ggml_reshape_4d(c, y, y->ne[0], x->ne[1], x->ne[2], x->ne[3]));
  return residual ? ggml_add(c, y, residual) : y;
}

ggml_tensor* ComposedOps::with_added(Graph& g, const ggml_tensor* weight, Operand x, ggml_tensor* residual) {
  const LowRank* added = added_to(weight);
  if (!added) return residual;
  const Operand inner = linear_operand(g, {added->down}, x, Activation::none);
  return linear(g, {added->up}, inner, Activation::none, residual);
}

Operand ComposedOps::linear_operand(Graph& g, const Product& product, Operand x, Activation activation) {
  return Operand(ComposedOps::linear(g, product, x, activation, nullptr));
}

Operand ComposedOps::projection(Graph& g, const Product& product, Operand x, int64_t) {
  return Operand(ComposedOps::linear(g, product, x, Activation::none, nullptr));
}

ggml_tensor* ComposedOps::layer_norm(Graph& g, const LayerNormalization& norm, ggml_tensor* x) {
  ggml_context* c = g.context();
  return ggml_add(c, ggml_mul(c, ggml_norm(c, x, norm.eps), norm.gamma), norm.beta);
}

Operand ComposedOps::layer_norm_operand(Graph& g, const LayerNormalization& norm, ggml_tensor* x) {
  return Operand(ComposedOps::layer_norm(g, norm, x));
}

/// Parts are joined as in https://doi.org/10.1080/00031305.1983.10483115 (Chan, Golub, LeVeque): in float32 the
/// difference of a mean of squares and a squared mean would have no digits left where the variance is small.
void ComposedOps::add_statistics(Graph& g, GroupStatistics& statistics, ggml_tensor* part) {
  ggml_context* c = g.context();
  const int64_t channels = part->ne[0], pixels = part->ne[1] * part->ne[2], groups = statistics.groups;
  ggml_tensor* x = ggml_cont(c, ggml_transpose(c, ggml_reshape_2d(c, part, channels, pixels)));
  x = ggml_reshape_2d(c, x, channels / groups * pixels, groups);
  ggml_tensor* mean = ggml_mean(c, x);
  ggml_tensor* squares = ggml_sum_rows(c, ggml_sqr(c, ggml_sub(c, x, mean)));
  if (statistics.pixels > 0) {
    const double share = static_cast<double>(pixels) / (statistics.pixels + pixels);
    const double weight = share * statistics.pixels * (channels / groups);
    ggml_tensor* difference = ggml_sub(c, mean, statistics.mean);
    ggml_tensor* between = ggml_scale(c, ggml_sqr(c, difference), static_cast<float>(weight));
    mean = ggml_add(c, statistics.mean, ggml_scale(c, difference, static_cast<float>(share)));
    squares = ggml_add(c, ggml_add(c, statistics.squares, squares), between);
  }
  statistics.mean = mean;
  statistics.squares = squares;
  statistics.pixels += pixels;
  g.schedule(mean);
  g.schedule(squares);
}

std::unique_ptr<Ops> make_composed_ops(const LowRankWeights* adapters) {
  return std::make_unique<ComposedOps>(adapters);
}

}  // namespace kandinsky
