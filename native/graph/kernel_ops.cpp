// The operations by the kernels of a table. Products and attention read rows in the table's own element type, with an
// even number of channels; convolutions also read a border of zeros around the image that the pass before them writes.
#include <algorithm>
#include <cmath>

#include "core/device.h"
#include "graph/activation.h"
#include "graph/composed_ops.h"
#include "graph/kernel_nodes.h"

namespace kandinsky {

namespace {

const float* values(const ggml_tensor* tensor) { return tensor ? static_cast<const float*>(tensor->data) : nullptr; }

void* address(const ggml_tensor* tensor) { return tensor ? tensor->data : nullptr; }

int64_t resampled(Resample resample, int64_t size) {
  return resample == Resample::nearest_2x ? 2 * size : resample == Resample::avg_pool_2x2 ? size / 2 : size;
}

PrepareArgs prepare_args(const ImageInput& in) {
  const ggml_tensor* x = in.image.x;
  PrepareArgs args{};
  args.channels[0] = static_cast<int>(x->ne[0]);
  args.channels[1] = in.image.beside ? static_cast<int>(in.image.beside->ne[0]) : 0;
  args.width = static_cast<int>(x->ne[1]);
  args.height = static_cast<int>(x->ne[2]);
  args.batch = static_cast<int>(x->ne[3]);
  if (in.norm) {
    args.groups = in.norm->groups;
    args.eps = in.norm->eps;
    args.gamma = values(in.norm->gamma);
    args.beta = values(in.norm->beta);
    if (in.norm->statistics) args.pixels = in.norm->statistics->pixels;
    if (const ggml_tensor* spatial = in.norm->spatial_scale) {
      args.spatial_width = static_cast<int>(spatial->ne[1]);
      args.spatial_height = static_cast<int>(spatial->ne[2]);
      args.spatial_scale = args.spatial_shift = args.gamma;  // not null: kernels size their scratch memory before binding
    }
  }
  args.silu = in.silu;
  args.resample = in.resample;
  return args;
}

class KernelOps : public ComposedOps {
 public:
  KernelOps(const KernelTable& kernels, const Device& device, PackedWeights* packed, const LowRankWeights* adapters)
      : ComposedOps(adapters), nodes_(kernels, device, packed) {}

  Operand operand(Graph& g, ggml_tensor* x, bool silu) override;
  Operand image_operand(Graph& g, const ImageInput& input) override { return Operand(prepare(g, input, 0, false)); }
  ggml_tensor* image(Graph& g, const ImageInput& input) override;
  Image side_by_side(Graph&, ggml_tensor* x, ggml_tensor* beside) override;
  ggml_tensor* linear(Graph& g, const Product& product, Operand x, Activation activation,
                      ggml_tensor* residual) override {
    return gemm(g, product, x, activation, residual, true);
  }
  Operand linear_operand(Graph& g, const Product& product, Operand x, Activation activation) override {
    return Operand(gemm(g, product, x, activation, nullptr, false));
  }
  Operand projection(Graph& g, const Product& product, Operand x, int64_t head_dim) override {
    return Operand(gemm(g, product, x, Activation::none, nullptr, !takes_heads_of(head_dim)));
  }
  ggml_tensor* conv2d(Graph& g, const Convolution& conv, const ImageInput& input, ggml_tensor* residual,
                      const Tile* tile) override;
  ggml_tensor* layer_norm(Graph& g, const LayerNormalization& norm, ggml_tensor* x) override {
    return norm_rows(g, norm, x, true);
  }
  Operand layer_norm_operand(Graph& g, const LayerNormalization& norm, ggml_tensor* x) override {
    return Operand(norm_rows(g, norm, x, false));
  }
  void add_statistics(Graph& g, GroupStatistics& statistics, ggml_tensor* part) override;
  Operand attention(Graph& g, const AttentionInput& input) override;

  void allocate() override { nodes_.allocate(); }
  size_t scratch_bytes() const override { return nodes_.scratch_bytes(); }
  size_t unpacked_bytes() const override { return nodes_.unpacked_bytes(); }
  std::optional<double> flops() const override { return nodes_.flops(); }

 private:
  const KernelTable& kernels() const { return nodes_.kernels(); }
  ggml_type type(bool f32) const { return f32 ? GGML_TYPE_F32 : nodes_.act_type(); }
  /// The attention kernel reads pairs of values.
  bool takes_heads_of(int64_t head_dim) const { return head_dim % 2 == 0 && head_dim <= kernels().max_head_dim; }

  ggml_tensor* prepare(Graph& g, const ImageInput& in, int padding, bool f32);
  ggml_tensor* gemm(Graph& g, const Product& product, Operand x, Activation activation, ggml_tensor* residual,
                    bool f32);
  ggml_tensor* norm_rows(Graph& g, const LayerNormalization& norm, ggml_tensor* x, bool f32);
  ggml_tensor* convolve(Graph& g, const Convolution& conv, ggml_tensor* bordered, int border, ggml_tensor* residual,
                        Algorithm algorithm);

  KernelNodes nodes_;
};

/// One pass of the kernel over the image, with a border of zeros that is `padding` (0 or 1) wide.
ggml_tensor* KernelOps::prepare(Graph& g, const ImageInput& in, int padding, bool f32) {
  PrepareArgs args = prepare_args(in);
  args.pad = padding;
  args.f32_dst = f32;
  ggml_tensor* scale = in.norm ? in.norm->spatial_scale : nullptr;
  ggml_tensor* shift = in.norm ? in.norm->spatial_shift : nullptr;
  ggml_tensor* sums = in.norm && in.norm->statistics ? in.norm->statistics->sums : nullptr;
  const int64_t channels = in.image.channels();
  const ggml_tensor* x = in.image.x;
  const KernelNodes::Result result{
      type(f32),
      {even(static_cast<int>(channels)), resampled(in.resample, x->ne[1]) + 2 * padding,
       resampled(in.resample, x->ne[2]) + 2 * padding, x->ne[3]}};
  return nodes_.add<PrepareArgs>(
      g.context(), kernels().prepare, args, result, {in.image.x, in.image.beside, in.scale_shift, scale, shift, sums},
      [in, scale, shift, sums, channels](PrepareArgs& a, ggml_tensor* y) {
        a.src[0] = values(in.image.x);
        a.src[1] = values(in.image.beside);
        if (in.scale_shift) {
          a.scale = values(in.scale_shift);
          a.shift = a.scale + channels;
          a.modulation_stride = static_cast<int64_t>(in.scale_shift->nb[1] / sizeof(float));
        }
        if (sums) a.sums = static_cast<const double*>(sums->data);
        a.spatial_scale = values(scale);
        a.spatial_shift = values(shift);
        a.dst = y->data;
      });
}

Operand KernelOps::operand(Graph& g, ggml_tensor* x, bool silu) {
  if (!silu && x->type == nodes_.act_type() && x->ne[0] % 2 == 0) return Operand(x);
  if (x->type != GGML_TYPE_F32) x = ggml_cast(g.context(), x, GGML_TYPE_F32);
  if (!silu && x->type == nodes_.act_type() && x->ne[0] % 2 == 0) return Operand(x);
  ImageInput in(ggml_reshape_4d(g.context(), x, x->ne[0], 1, ggml_nrows(x), 1));
  in.silu = silu;
  ggml_tensor* rows = prepare(g, in, 0, false);
  return Operand(ggml_reshape_4d(g.context(), rows, rows->ne[0], x->ne[1], x->ne[2], x->ne[3]));
}

ggml_tensor* KernelOps::image(Graph& g, const ImageInput& in) {
  if (!in.image.beside && !in.norm && !in.silu && in.resample == Resample::none) return in.image.x;
  ggml_tensor* y = prepare(g, in, 0, true);
  if (y->ne[0] == in.image.channels()) return y;
  return ggml_cont(g.context(), ggml_view_4d(g.context(), y, in.image.channels(), y->ne[1], y->ne[2], y->ne[3],
                                             y->nb[1], y->nb[2], y->nb[3], 0));
}

Image KernelOps::side_by_side(Graph&, ggml_tensor* x, ggml_tensor* beside) {
  Image image(x);
  image.beside = beside;
  return image;
}

ggml_tensor* KernelOps::gemm(Graph& g, const Product& product, Operand x, Activation activation,
                             ggml_tensor* residual, bool f32) {
  if (activation != Activation::none && added_to(product.weight)) {
    // The kernel adds the residual after the activation.
    ggml_tensor* y = activate(g, activation, gemm(g, product, x, Activation::none, nullptr, true));
    if (residual) y = ggml_add(g.context(), y, residual);
    return f32 ? y : operand(g, y, false).tensor;
  }
  residual = with_added(g, product.weight, x, residual);
  ggml_tensor* rows = x.tensor;
  const int64_t out = product.weight->ne[1], out_stride = f32 ? out : even(static_cast<int>(out));
  GemmArgs args{};
  args.rows = static_cast<int>(ggml_nrows(rows));
  args.src_stride = rows->ne[0];
  args.weights = nodes_.weights(product.weight, 1, Algorithm::direct);
  args.bias = values(product.bias);
  args.activation = activation;
  args.residual_stride = out;
  args.f32_dst = f32;
  args.dst_stride = out_stride;
  return nodes_.add<GemmArgs>(g.context(), kernels().gemm, args,
                              {type(f32), {out_stride, rows->ne[1], rows->ne[2], rows->ne[3]}}, {rows, residual},
                              [rows, residual](GemmArgs& a, ggml_tensor* y) {
                                a.src = rows->data;
                                a.residual = values(residual);
                                a.dst = y->data;
                              });
}

ggml_tensor* KernelOps::norm_rows(Graph& g, const LayerNormalization& norm, ggml_tensor* x, bool f32) {
  LayerNormArgs args{};
  args.rows = static_cast<int>(ggml_nrows(x));
  args.features = static_cast<int>(x->ne[0]);
  args.eps = norm.eps;
  args.f32_dst = f32;
  const int64_t width = f32 ? args.features : even(args.features);
  return nodes_.add<LayerNormArgs>(g.context(), kernels().layer_norm, args,
                                   {type(f32), {width, x->ne[1], x->ne[2], x->ne[3]}}, {x, norm.gamma, norm.beta},
                                   [x, norm](LayerNormArgs& a, ggml_tensor* y) {
                                     a.src = values(x);
                                     a.gamma = values(norm.gamma);
                                     a.beta = values(norm.beta);
                                     a.dst = y->data;
                                   });
}

ggml_tensor* KernelOps::conv2d(Graph& g, const Convolution& conv, const ImageInput& input, ggml_tensor* residual,
                               const Tile* tile) {
  const int border = std::max(conv.padding_before, conv.padding_after);
  if (border > 1) return ComposedOps::conv2d(g, conv, input, residual, tile);
  ggml_tensor* x = prepare(g, input, border, false);
  const int64_t unused = 2 * border - conv.padding_before - conv.padding_after;  // of the border
  if (tile) {
    const int64_t lines = (tile->count - 1) * conv.stride + conv.kernel + unused;
    x = ggml_view_4d(g.context(), x, x->ne[0], x->ne[1], lines, x->ne[3], x->nb[1], x->nb[2], x->nb[3],
                     tile->first * conv.stride * x->nb[2]);
  }
  if (conv.kernel == 1 && conv.stride == 1 && border == 0)
    return linear(g, conv.product, Operand(x), Activation::none, residual);
  Algorithm algorithm = Algorithm::direct;
  if (kernels().has_winograd && conv.kernel == 3 && conv.stride == 1) {
    const int64_t height = tile ? tile->height : x->ne[2] - unused - 2, width = x->ne[1] - unused - 2;
    const int64_t out = conv.product.weight->ne[1];
    algorithm = choose_algorithm(static_cast<int>(height), static_cast<int>(width),
                                 static_cast<int>(input.image.channels()), static_cast<int>(out),
                                 nodes_.packs_weights());
    // In bfloat16 F4 rounds by 1 %, F2 by 0.4 %.
    if (conv.sensitivity == Sensitivity::near_output) algorithm = std::min(algorithm, Algorithm::winograd_f2);
  }
  if (const LowRank* added = added_to(conv.product.weight)) {
    Convolution down = conv;
    down.product = {added->down};
    ggml_tensor* inner = convolve(g, down, x, border, nullptr, Algorithm::direct);
    residual = linear(g, {added->up}, operand(g, inner, false), Activation::none, residual);
  }
  return convolve(g, conv, x, border, residual, algorithm);
}

ggml_tensor* KernelOps::convolve(Graph& g, const Convolution& conv, ggml_tensor* x, int border, ggml_tensor* residual,
                                 Algorithm algorithm) {
  const int64_t unused = 2 * border - conv.padding_before - conv.padding_after;
  const auto out_size = [&](int64_t bordered) { return (bordered - unused - conv.kernel) / conv.stride + 1; };
  const int64_t width = out_size(x->ne[1]), height = out_size(x->ne[2]), out = conv.product.weight->ne[1];
  ConvArgs args{};
  args.batch = static_cast<int>(x->ne[3]);
  args.src_height = static_cast<int>(x->ne[2]);
  args.src_width = static_cast<int>(x->ne[1]);
  args.height = static_cast<int>(height);
  args.width = static_cast<int>(width);
  args.kernel = conv.kernel;
  args.stride = conv.stride;
  args.origin = border - conv.padding_before;
  args.weights = nodes_.weights(conv.product.weight, conv.kernel * conv.kernel, algorithm);
  args.bias = values(conv.product.bias);
  return nodes_.add<ConvArgs>(g.context(), kernels().conv, args, {GGML_TYPE_F32, {out, width, height, x->ne[3]}},
                              {x, residual}, [x, residual](ConvArgs& a, ggml_tensor* y) {
                                a.src = x->data;
                                a.residual = values(residual);
                                a.dst = static_cast<float*>(y->data);
                              });
}

void KernelOps::add_statistics(Graph& g, GroupStatistics& statistics, ggml_tensor* part) {
  PrepareArgs args{};
  args.channels[0] = static_cast<int>(part->ne[0]);
  args.batch = 1;
  args.width = static_cast<int>(part->ne[1]);
  args.height = static_cast<int>(part->ne[2]);
  args.groups = statistics.groups;
  ggml_tensor* before = statistics.sums;
  statistics.sums = nodes_.add<PrepareArgs>(g.context(), kernels().group_sums, args,
                                            {GGML_TYPE_F64, {2, statistics.groups, 1, 1}}, {part, before},
                                            [part, before](PrepareArgs& a, ggml_tensor* sums) {
                                              a.src[0] = values(part);
                                              if (before) a.sums = static_cast<const double*>(before->data);
                                              a.dst = sums->data;
                                            });
  statistics.pixels += part->ne[1] * part->ne[2];
  g.schedule(statistics.sums);
}

Operand KernelOps::attention(Graph& g, const AttentionInput& in) {
  ggml_tensor *q = in.q.tensor, *k = in.own.k.tensor, *v = in.own.v.tensor;
  ggml_tensor *added_k = in.added.k.tensor, *added_v = in.added.v.tensor, *mask = in.mask;
  if (!takes_heads_of(q->ne[0] / in.heads)) return ComposedOps::attention(g, in);
  AttentionArgs args{};
  args.q_stride = args.dst_stride = q->ne[0];
  args.kv_stride = k->ne[0];
  args.batch = static_cast<int>(q->ne[2]);
  args.heads = static_cast<int>(in.heads);
  args.head_dim = static_cast<int>(q->ne[0] / in.heads);
  args.queries = static_cast<int>(q->ne[1]);
  args.tokens = static_cast<int>(k->ne[1]);
  if (added_k) {
    args.added_stride = added_k->ne[0];
    args.added_tokens = static_cast<int>(added_k->ne[1]);
  }
  args.scale = in.is_scaled ? 1 / std::sqrt(static_cast<float>(args.head_dim)) : 1;
  if (mask) {
    const auto stride = [mask](int dimension) {
      return mask->ne[dimension] > 1 ? static_cast<int64_t>(mask->nb[dimension] / sizeof(float)) : 0;
    };
    args.mask_query_stride = stride(1);
    args.mask_head_stride = stride(2);
    args.mask_stride = stride(3);
  }
  return Operand(nodes_.add<AttentionArgs>(
      g.context(), kernels().attention, args, {nodes_.act_type(), {q->ne[0], q->ne[1], q->ne[2], 1}},
      {q, k, v, added_k, added_v, mask}, [=](AttentionArgs& a, ggml_tensor* y) {
        a.q = address(q);
        a.k = address(k);
        a.v = address(v);
        a.added_k = address(added_k);
        a.added_v = address(added_v);
        a.mask = values(mask);
        a.dst = y->data;
      }));
}

}  // namespace

std::unique_ptr<Ops> make_kernel_ops(const KernelTable& kernels, const Device& device, PackedWeights* packed,
                                     const LowRankWeights* adapters) {
  return std::make_unique<KernelOps>(kernels, device, packed, adapters);
}

}  // namespace kandinsky
