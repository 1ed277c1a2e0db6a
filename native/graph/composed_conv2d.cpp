// Convolution of operations that every ggml backend has: ggml_get_rows gathers the neighbours of each pixel into a row
// [kh][kw][in], which is the row order of the kernel's matrix, and one matrix product does the rest.
#include "graph/composed_ops.h"

#include <algorithm>
#include <climits>

#include "core/error.h"

namespace kandinsky {

namespace {

// The gathered rows are kernel^2 times the image: they are made and used a part at a time. The number of parts is
// limited because LoadedNetwork::make_graph counts on it.
constexpr int64_t part_bytes = 64 << 20;
constexpr int64_t max_parts = 32, max_tile_parts = 4;

struct Geometry {
  int64_t width, height, batch, out_width, out_height;
  int kernel, stride, padding;
  int64_t first_row;  // of the result, if only a tile of it is made
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
    fail(ErrorCode::out_of_memory, "{} images of {} x {} pixels are too large", s.batch, s.width, s.height);
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

}  // namespace

ggml_tensor* ComposedOps::conv2d(Graph& g, const Convolution& conv, const ImageInput& input, ggml_tensor* residual,
                                 const Tile* tile) {
  ggml_context* c = g.context();
  ggml_tensor* x = image(g, input);
  const int padding = conv.padding_before + conv.padding_after;
  const Geometry s{x->ne[1],
                   x->ne[2],
                   x->ne[3],
                   (x->ne[1] + padding - conv.kernel) / conv.stride + 1,
                   tile ? tile->count : (x->ne[2] + padding - conv.kernel) / conv.stride + 1,
                   conv.kernel,
                   conv.stride,
                   conv.padding_before,
                   tile ? tile->first : 0,
                   tile ? max_tile_parts : max_parts};
  const auto& [weight, bias] = conv.product;
  const bool is_pointwise = conv.kernel == 1 && conv.stride == 1 && padding == 0 && !tile;
  const auto product = [&](ggml_tensor* matrix) {
    return is_pointwise ? matrix_product(g, matrix, ggml_reshape_2d(c, x, x->ne[0], ggml_nrows(x)))
                        : convolve(g, matrix, x, s);
  };
  ggml_tensor* y = product(weight);
  if (bias) y = ggml_add(c, y, bias);
  if (const LowRank* added = added_to(weight)) y = ggml_add(c, y, matrix_product(g, added->up, product(added->down)));
  y = ggml_reshape_4d(c, y, y->ne[0], s.out_width, s.out_height, s.batch);
  return residual ? ggml_add(c, y, residual) : y;
}

}  // namespace kandinsky
