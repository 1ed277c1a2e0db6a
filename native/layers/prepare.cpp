#include "layers/prepare.h"

#include "layers/norm.h"
#include "layers/resample.h"

namespace kandinsky {

namespace {

const float* values(const ggml_tensor* weight) { return static_cast<const float*>(weight->data); }

float* address(ggml_tensor* tensor) { return tensor ? static_cast<float*>(tensor->data) : nullptr; }

PrepareArgs prepare_args(const ImageInput& in) {
  const ggml_tensor* x = in.image.x;
  PrepareArgs args{};
  args.channels[0] = static_cast<int>(x->ne[0]);
  args.channels[1] = in.image.beside ? static_cast<int>(in.image.beside->ne[0]) : 0;
  args.width = static_cast<int>(x->ne[1]);
  args.height = static_cast<int>(x->ne[2]);
  args.batch = static_cast<int>(x->ne[3]);
  if (in.norm) {
    const GroupNorm& norm = in.norm->norm;
    args.groups = norm.groups;
    args.eps = norm.eps;
    args.gamma = values(norm.weight);
    args.beta = values(norm.bias);
    if (in.statistics) args.pixels = in.statistics->pixels();
  }
  args.silu = in.silu;
  args.resample = in.resample;
  return args;
}

int64_t resampled(Resample resample, int64_t size) {
  return resample == Resample::nearest_2x ? 2 * size : resample == Resample::avg_pool_2x2 ? size / 2 : size;
}

/// One pass of the kernel over the image.
ggml_tensor* prepare_node(Graph& g, const ImageInput& in, int padding, bool f32) {
  KernelNodes& nodes = *g.kernels();
  PrepareArgs args = prepare_args(in);
  args.pad = padding;
  args.f32_dst = f32;
  ggml_tensor *scale = nullptr, *shift = nullptr;
  if (in.norm && in.norm->is_spatial) {
    scale = in.norm->conv_y.forward(g, in.zq);
    shift = in.norm->conv_b.forward(g, in.zq);
    args.spatial_width = static_cast<int>(in.zq->ne[1]);
    args.spatial_height = static_cast<int>(in.zq->ne[2]);
    args.spatial_scale = args.spatial_shift = args.gamma;  // not null: kernels size their scratch memory before binding
  }
  ggml_tensor* sums = in.statistics ? in.statistics->sums() : nullptr;
  const int64_t channels = in.image.channels();
  const ggml_tensor* x = in.image.x;
  const KernelNodes::Result result{f32 ? GGML_TYPE_F32 : nodes.act_type(),
                                   {even(static_cast<int>(channels)), resampled(in.resample, x->ne[1]) + 2 * padding,
                                    resampled(in.resample, x->ne[2]) + 2 * padding, x->ne[3]}};
  return nodes.add<PrepareArgs>(
      g.context(), nodes.kernels().prepare, args, result,
      {in.image.x, in.image.beside, in.scale_shift, scale, shift, sums},
      [=](PrepareArgs& a, ggml_tensor* y) {
        a.src[0] = address(in.image.x);
        a.src[1] = address(in.image.beside);
        if (in.scale_shift) {
          a.scale = address(in.scale_shift);
          a.shift = a.scale + channels;
          a.modulation_stride = static_cast<int64_t>(in.scale_shift->nb[1] / sizeof(float));
        }
        if (sums) a.sums = static_cast<const double*>(sums->data);
        a.spatial_scale = address(scale);
        a.spatial_shift = address(shift);
        a.dst = y->data;
      });
}

/// The same of ggml's operations.
ggml_tensor* composed(Graph& g, const ImageInput& in) {
  ggml_context* c = g.context();
  ggml_tensor* y = in.image.x;
  if (in.norm) {
    GroupNorm::Then then;
    then.silu = in.silu;
    if (ggml_tensor* modulation = in.scale_shift) {
      const size_t stride = modulation->nb[1];
      const auto half = [&](size_t offset) {
        return ggml_cont(c, ggml_view_4d(c, modulation, y->ne[0], 1, 1, y->ne[3], stride, stride, stride, offset));
      };
      then.scale = half(0);
      then.shift = half(y->ne[0] * sizeof(float));
    }
    y = in.norm->forward(g, y, in.zq, then, in.statistics);
  } else if (in.silu) {
    y = ggml_silu(c, y);
  }
  if (in.resample == Resample::nearest_2x) return nearest_resize(g, y, 2 * y->ne[1], 2 * y->ne[2]);
  return in.resample == Resample::avg_pool_2x2 ? average_pool_2x2(g, y) : y;
}

}  // namespace

Image side_by_side(Graph& g, ggml_tensor* x, ggml_tensor* beside) {
  if (!g.kernels()) return ggml_concat(g.context(), x, beside, 0);
  Image image(x);
  image.beside = beside;
  return image;
}

ggml_tensor* image_of(Graph& g, const ImageInput& in) {
  if (!g.kernels()) return composed(g, in);
  if (!in.image.beside && !in.norm && !in.silu && in.resample == Resample::none) return in.image.x;
  ggml_tensor* y = prepare_node(g, in, 0, true);
  if (y->ne[0] == in.image.channels()) return y;
  return ggml_cont(g.context(), ggml_view_4d(g.context(), y, in.image.channels(), y->ne[1], y->ne[2], y->ne[3],
                                             y->nb[1], y->nb[2], y->nb[3], 0));
}

ggml_tensor* image_operand(Graph& g, const ImageInput& in, int padding) {
  return g.kernels() ? prepare_node(g, in, padding, false) : composed(g, in);
}

ggml_tensor* operand(Graph& g, ggml_tensor* x, bool silu) {
  if (!g.kernels()) return silu ? ggml_silu(g.context(), x) : x;
  if (!silu && x->type == g.kernels()->act_type() && x->ne[0] % 2 == 0) return x;
  ImageInput in(ggml_reshape_4d(g.context(), x, x->ne[0], 1, ggml_nrows(x), 1));
  in.silu = silu;
  ggml_tensor* rows = prepare_node(g, in, 0, false);
  return ggml_reshape_4d(g.context(), rows, rows->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}

}  // namespace kandinsky
