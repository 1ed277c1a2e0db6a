// Composed of operations that every ggml backend has: ggml_get_rows gathers the neighbours of each pixel into a row
// [kh][kw][in], which is the packed kernel's row order, and one matrix product does the rest.
#include "layers/conv2d.h"

#include <algorithm>
#include <climits>

#include "core/error.h"
#include "layers/linear.h"

namespace kandinsky {

namespace {

// The gathered rows are kernel^2 times the image: they are made and used a part at a time. The number of parts is
// limited because LoadedNetwork::make_graph counts on it.
constexpr int64_t part_bytes = 64 << 20;
constexpr int64_t max_parts = 32, max_strip_parts = 4;

struct Geometry {
  int64_t width, height, batch, out_width, out_height;
  int kernel, stride, padding;
  int64_t first_row;  // of the result, if only a strip of it is made
  int64_t max_parts;
};

/// For each output pixel and each kernel position the number of the input pixel there; one past the last for padding.
std::vector<int32_t> neighbour_rows(const Geometry& s) {
  const int64_t zero_row = s.width * s.height * s.batch;
  std::vector<int32_t> rows;
  rows.reserve(s.out_width * s.out_height * s.batch * s.kernel * s.kernel);
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t oy = 0; oy < s.out_height; ++oy) {
      for (int64_t ox = 0; ox < s.out_width; ++ox) {
        for (int ky = 0; ky < s.kernel; ++ky) {
          for (int kx = 0; kx < s.kernel; ++kx) {
            const int64_t y = (s.first_row + oy) * s.stride + ky - s.padding, x = ox * s.stride + kx - s.padding;
            const bool inside = y >= 0 && y < s.height && x >= 0 && x < s.width;
            rows.push_back(static_cast<int32_t>(inside ? (b * s.height + y) * s.width + x : zero_row));
          }
        }
      }
    }
  }
  return rows;
}

std::string key_of(const Geometry& s) {
  return "conv " + std::to_string(s.width) + "x" + std::to_string(s.height) + "x" + std::to_string(s.batch) + " to " +
         std::to_string(s.out_width) + "x" + std::to_string(s.out_height) + " kernel " + std::to_string(s.kernel) +
         " stride " + std::to_string(s.stride) + " padding " + std::to_string(s.padding) + " from " +
         std::to_string(s.first_row);
}

/// x: ne = {in, W, H, B}; returns {out, W'*H'*B}.
ggml_tensor* convolve(Graph& g, ggml_tensor* weight, ggml_tensor* x, const Geometry& s) {
  ggml_context* c = g.context();
  const int64_t taps = s.kernel * s.kernel, in = x->ne[0], lines = s.out_height * s.batch;
  // CUDA pads at most 65535 rows: here lines of pixels.
  if (s.height * s.batch >= 65535 ||
      std::max((s.height * s.batch + 1) * s.width, lines * s.out_width * taps) > INT32_MAX) {
    fail(ErrorCode::out_of_memory, "%lld images of %lld x %lld pixels are too large", static_cast<long long>(s.batch),
         static_cast<long long>(s.width), static_cast<long long>(s.height));
  }
  ggml_tensor* indices = g.indices(key_of(s), [&] { return neighbour_rows(s); });
  ggml_tensor* padded = ggml_pad(c, ggml_reshape_2d(c, x, in * s.width, s.height * s.batch), 0, 1, 0, 0);
  padded = ggml_reshape_2d(c, padded, in, s.width * (s.height * s.batch + 1));

  const int64_t line_bytes = s.out_width * taps * in * static_cast<int64_t>(sizeof(float));
  const int64_t part = std::max(std::max<int64_t>(1, part_bytes / line_bytes), (lines + s.max_parts - 1) / s.max_parts);
  ggml_tensor* result = nullptr;  // {out * W', lines}
  for (int64_t first = 0; first < lines; first += part) {
    const int64_t count = std::min(part, lines - first), row_count = count * s.out_width;
    ggml_tensor* where =
        ggml_view_1d(c, indices, row_count * taps, first * s.out_width * taps * sizeof(int32_t));
    ggml_tensor* rows = ggml_reshape_2d(c, ggml_get_rows(c, padded, where), taps * in, row_count);
    ggml_tensor* product = matrix_product(g, weight, rows);
    product = ggml_reshape_2d(c, product, product->ne[0] * s.out_width, count);
    if (first == 0) {
      // Also what makes room for the other parts.
      result = count == lines ? product : ggml_pad(c, product, 0, static_cast<int>(lines - count), 0, 0);
    } else {
      ggml_tensor* place = ggml_view_2d(c, result, result->ne[0], count, result->nb[1], first * result->nb[1]);
      result = g.written(result, ggml_cpy(c, product, place));
    }
  }
  return ggml_reshape_2d(c, result, result->ne[0] / s.out_width, s.out_width * lines);
}

/// The kernels read pixels beside the image from a border that the pass before them writes, at most one pixel wide.
ggml_tensor* convolution_node(Graph& g, const Conv2d& conv, const ImageInput& input, ggml_tensor* residual,
                              const Strip* strip) {
  KernelNodes& nodes = *g.kernels();
  const int border = std::max(conv.options.padding_before, conv.options.padding_after);
  ggml_tensor* x = image_operand(g, input, border);
  const int64_t unused = 2 * border - conv.options.padding_before - conv.options.padding_after;  // of the border
  if (strip) {
    const int64_t lines = (strip->count - 1) * conv.options.stride + conv.kernel + unused;
    x = ggml_view_4d(g.context(), x, x->ne[0], x->ne[1], lines, x->ne[3], x->nb[1], x->nb[2], x->nb[3],
                     strip->first * conv.options.stride * x->nb[2]);
  }
  if (conv.kernel == 1 && conv.options.stride == 1 && border == 0) {
    Epilogue epilogue;
    epilogue.residual = residual;
    return product_node(g, conv.weight, conv.bias, x, epilogue);
  }
  const auto out_size = [&](int64_t bordered) {
    return (bordered - unused - conv.kernel) / conv.options.stride + 1;
  };
  const int64_t width = out_size(x->ne[1]), height = out_size(x->ne[2]);
  const int64_t out = conv.weight->ne[1];
  Algorithm algorithm = Algorithm::direct;
  if (conv.kernel == 3 && conv.options.stride == 1) {
    const int in = static_cast<int>(input.image.channels());
    algorithm = choose_algorithm(static_cast<int>(strip ? strip->height : height), static_cast<int>(width), in,
                                 static_cast<int>(out), nodes.packs_weights());
    algorithm = std::min(algorithm, conv.limit);
  }
  ConvArgs args{};
  args.batch = static_cast<int>(x->ne[3]);
  args.src_height = static_cast<int>(x->ne[2]);
  args.src_width = static_cast<int>(x->ne[1]);
  args.height = static_cast<int>(height);
  args.width = static_cast<int>(width);
  args.kernel = conv.kernel;
  args.stride = conv.options.stride;
  args.origin = border - conv.options.padding_before;
  args.weights = nodes.weights(conv.weight, conv.kernel * conv.kernel, algorithm);
  args.bias = conv.bias ? static_cast<const float*>(conv.bias->data) : nullptr;
  return nodes.add<ConvArgs>(g.context(), nodes.kernels().conv, args, {GGML_TYPE_F32, {out, width, height, x->ne[3]}},
                             {x, residual}, [x, residual](ConvArgs& a, ggml_tensor* y) {
                               a.src = x->data;
                               a.residual = residual ? static_cast<const float*>(residual->data) : nullptr;
                               a.dst = static_cast<float*>(y->data);
                             });
}

}  // namespace

ggml_tensor* Conv2d::forward(Graph& g, const ImageInput& input, ggml_tensor* residual, const Strip* strip) const {
  if (g.kernels() && std::max(options.padding_before, options.padding_after) <= 1) {
    return convolution_node(g, *this, input, residual, strip);
  }
  ggml_context* c = g.context();
  ggml_tensor* x = image_of(g, input);
  const int padding = options.padding_before + options.padding_after;
  const Geometry s{x->ne[1],
                   x->ne[2],
                   x->ne[3],
                   (x->ne[1] + padding - kernel) / options.stride + 1,
                   strip ? strip->count : (x->ne[2] + padding - kernel) / options.stride + 1,
                   kernel,
                   options.stride,
                   options.padding_before,
                   strip ? strip->first : 0,
                   strip ? max_strip_parts : max_parts};
  const bool is_pointwise = kernel == 1 && options.stride == 1 && padding == 0 && !strip;
  ggml_tensor* y = is_pointwise ? matrix_product(g, weight, ggml_reshape_2d(c, x, x->ne[0], ggml_nrows(x)))
                                : convolve(g, weight, x, s);
  if (bias) y = ggml_add(c, y, bias);
  y = ggml_reshape_4d(c, y, y->ne[0], s.out_width, s.out_height, s.batch);
  return residual ? ggml_add(c, y, residual) : y;
}

}  // namespace kandinsky
