#include "graph/resample.h"

namespace kandinsky {

namespace {

std::vector<int32_t> nearest_rows(int64_t w, int64_t h, int64_t batch, int64_t width, int64_t height) {
  std::vector<int32_t> rows;
  rows.reserve(width * height * batch);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t y = 0; y < height; ++y) {
      for (int64_t x = 0; x < width; ++x) {
        rows.push_back(static_cast<int32_t>((b * h + y * h / height) * w + x * w / width));
      }
    }
  }
  return rows;
}

}  // namespace

ggml_tensor* nearest_resize(Graph& g, ggml_tensor* x, int64_t width, int64_t height) {
  ggml_context* c = g.context();
  const int64_t w = x->ne[1], h = x->ne[2], batch = x->ne[3];
  const std::string key = "nearest " + std::to_string(w) + "x" + std::to_string(h) + "x" + std::to_string(batch) +
                          " to " + std::to_string(width) + "x" + std::to_string(height);
  ggml_tensor* indices = g.indices(key, [&] { return nearest_rows(w, h, batch, width, height); });
  ggml_tensor* pixels = ggml_reshape_2d(c, x, x->ne[0], w * h * batch);
  return ggml_reshape_4d(c, ggml_get_rows(c, pixels, indices), x->ne[0], width, height, batch);
}

ggml_tensor* bilinear_resize(Graph& g, ggml_tensor* x, int64_t width, int64_t height, bool align_corners) {
  ggml_context* c = g.context();
  // ggml interpolates the two innermost dimensions.
  ggml_tensor* planes = ggml_cont(c, ggml_permute(c, x, 2, 0, 1, 3));
  const uint32_t mode = GGML_SCALE_MODE_BILINEAR | (align_corners ? GGML_SCALE_FLAG_ALIGN_CORNERS : 0);
  planes = ggml_interpolate(c, planes, width, height, x->ne[0], x->ne[3], mode);
  return ggml_cont(c, ggml_permute(c, planes, 1, 2, 0, 3));
}

ggml_tensor* average_pool_2x2(Graph& g, ggml_tensor* x) {
  ggml_context* c = g.context();
  const auto corner = [&](int64_t dx, int64_t dy) {
    return ggml_view_4d(c, x, x->ne[0], x->ne[1] / 2, x->ne[2] / 2, x->ne[3], 2 * x->nb[1], 2 * x->nb[2], x->nb[3],
                        dx * x->nb[1] + dy * x->nb[2]);
  };
  ggml_tensor* top = ggml_add(c, corner(0, 0), corner(1, 0));
  ggml_tensor* bottom = ggml_add(c, corner(0, 1), corner(1, 1));
  return ggml_scale(c, ggml_add(c, top, bottom), 0.25f);
}

}  // namespace kandinsky
