#include "layers/strips.h"

#include <algorithm>

namespace kandinsky {

namespace {

// Winograd's largest tile. Strips also begin at whole runs of the kernels' sums, which are 32 pixels.
constexpr int64_t tile_rows = 4;
constexpr int64_t least_strip_rows = 32;
// LoadedNetwork::make_graph counts on it: nodes are made for each strip.
constexpr int64_t max_strips = 32;

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

int64_t height_of(const Strips::Image& image) {
  int64_t height = 0;
  for (const ggml_tensor* strip : image) height += strip->ne[2];
  return height;
}

int64_t scale_of(const Strips::Convolution& convolution) {
  return convolution.resample == Resample::nearest_2x ? 2 : 1;
}

int64_t convolved_height(const Strips::Convolution& convolution, int64_t height) {
  const Conv2d& conv = *convolution.conv;
  const int64_t padding = conv.options.padding_before + conv.options.padding_after;
  return (scale_of(convolution) * height + padding - conv.kernel) / conv.options.stride + 1;
}

}  // namespace

Strips::RowStream::RowStream(const Strips& strips, const Source& source)
    : strips_(strips), convolution_(source.convolution), height_(height_of(source.image)) {
  if (!convolution_) {
    image_ = source.image;
    return;
  }
  input_ = std::make_unique<RowStream>(strips, Source{source.image});
  height_ = convolved_height(*convolution_, height_);
}

Strips::RowStream::RowStream(const Strips& strips, const Convolution& convolution, RowStream input)
    : strips_(strips),
      convolution_(convolution),
      input_(std::make_unique<RowStream>(std::move(input))),
      height_(convolved_height(convolution, input_->height())) {}

ggml_tensor* Strips::RowStream::rows(int64_t first, int64_t end) {
  if (is_stored()) return stored_rows(first, end);
  if (end > end_) extend(first, std::min(height_, round_up(end, tile_rows)));
  return strips_.rows_of(window_, first - first_, end - first_);
}

ggml_tensor* Strips::RowStream::stored_rows(int64_t first, int64_t end) const {
  ggml_tensor* rows = nullptr;
  int64_t top = 0;
  for (ggml_tensor* strip : image_) {
    const int64_t from = std::max(first, top), to = std::min(end, top + strip->ne[2]);
    if (from < to) {
      ggml_tensor* part = strips_.rows_of(strip, from - top, to - top);
      rows = rows ? ggml_concat(strips_.g_.context(), rows, part, 2) : part;
    }
    top += strip->ne[2];
  }
  return rows;
}

void Strips::RowStream::extend(int64_t first, int64_t end) {
  Graph& g = strips_.g_;
  ggml_tensor* kept = nullptr;
  if (first < end_) {
    // Before the new rows are made, so that the old window's memory is free for them.
    kept = ggml_cont(g.context(), strips_.rows_of(window_, first - first_, end_ - first_));
    g.schedule(kept);
  }
  ggml_tensor* added = strips_.convolved_rows(*convolution_, *input_, end_, end, nullptr);
  window_ = kept ? ggml_concat(g.context(), kept, added, 2) : added;
  first_ = std::min(first, end_);
  end_ = end;
}

Strips::Image Strips::resnet(const ResnetBlock2D& resnet, const Source& x) const {
  GroupStatistics statistics1(resnet.norm1.norm.groups), statistics2(resnet.norm2.norm.groups);
  const Convolution conv1{&resnet.conv1, &resnet.norm1, &statistics1};
  const Convolution conv2{&resnet.conv2, &resnet.norm2, &statistics2};

  RowStream input(*this, x);
  const int64_t height = input.height();
  Image residual;
  each_strip(height, [&](int64_t first, int64_t end) {
    ggml_tensor* strip = input.rows(first, end);
    statistics1.add(g_, strip);
    residual.push_back(resnet.conv_shortcut ? resnet.conv_shortcut->forward(g_, strip) : strip);
    g_.schedule(residual.back());
  });
  const Source again = resnet.conv_shortcut ? x : Source{residual};

  add_all(statistics2, RowStream(*this, conv1, RowStream(*this, again)));

  RowStream hidden(*this, conv1, RowStream(*this, again));
  Image result;
  each_strip(height, [&](int64_t first, int64_t end) {
    result.push_back(convolved_rows(conv2, hidden, first, end, residual[result.size()]));
    g_.schedule(result.back());
  });
  return result;
}

ggml_tensor* Strips::convolved(const Conv2d& conv, const Norm2d* norm, const Image& x) const {
  GroupStatistics statistics(norm ? norm->norm.groups : 1);
  if (norm) add_all(statistics, RowStream(*this, Source{x}));
  const Convolution convolution{&conv, norm, &statistics};
  RowStream input(*this, Source{x});
  const int64_t height = convolved_height(convolution, input.height());
  ggml_tensor* result = nullptr;
  each_early_strip(height, [&](int64_t first, int64_t end) {
    store(result, convolved_rows(convolution, input, first, end, nullptr), first, height);
  });
  return result;
}

ggml_tensor* Strips::joined(const Image& x) const {
  ggml_tensor* result = nullptr;
  int64_t first = 0;
  for (ggml_tensor* strip : x) {
    store(result, strip, first, height_of(x));
    first += strip->ne[2];
  }
  return result;
}

void Strips::each_strip(int64_t height, const Visit& visit) const {
  const int64_t count = std::max(least_strip_rows, round_up((height + max_strips - 1) / max_strips, 2 * tile_rows));
  for (int64_t first = 0; first < height; first += count) visit(first, std::min(height, first + count));
}

void Strips::each_early_strip(int64_t height, const Visit& visit) const {
  int64_t done = 0;
  each_strip(height, [&](int64_t, int64_t end) {
    if (end < height) end -= tile_rows;
    visit(done, end);
    done = end;
  });
}

void Strips::add_all(GroupStatistics& statistics, RowStream image) const {
  const auto add = [&](int64_t first, int64_t end) { statistics.add(g_, image.rows(first, end)); };
  image.is_stored() ? each_strip(image.height(), add) : each_early_strip(image.height(), add);
}

ggml_tensor* Strips::convolved_rows(const Convolution& convolution, RowStream& input, int64_t first, int64_t end,
                                    ggml_tensor* residual) const {
  const Conv2d& conv = *convolution.conv;
  const int64_t scale = scale_of(convolution), stride = conv.options.stride;
  const int64_t before = first * stride - conv.options.padding_before;
  const int64_t after = (end - 1) * stride + conv.kernel - conv.options.padding_before;
  const int64_t from = std::max<int64_t>(0, before) / scale;
  const int64_t to = std::min(input.height(), round_up(after, scale) / scale);
  ImageInput x(input.rows(from, to));
  x.resample = convolution.resample;
  if (convolution.norm) {
    x.norm = convolution.norm;
    x.statistics = convolution.statistics;
    x.zq = x.norm->is_spatial ? zq_rows(from, to, input.height()) : nullptr;
    x.silu = true;
  }
  const Strip strip{first - from * scale / stride, end - first, convolved_height(convolution, input.height())};
  return conv.forward(g_, x, residual, &strip);
}

ggml_tensor* Strips::rows_of(ggml_tensor* image, int64_t first, int64_t end) const {
  if (first == 0 && end == image->ne[2]) return image;
  return ggml_view_4d(g_.context(), image, image->ne[0], image->ne[1], end - first, 1, image->nb[1], image->nb[2],
                      image->nb[3], first * image->nb[2]);
}

ggml_tensor* Strips::zq_rows(int64_t first, int64_t end, int64_t height) const {
  ggml_context* c = g_.context();
  const int64_t zq_height = zq_->ne[2];
  const std::string key = "rows of " + std::to_string(zq_height) + " for " + std::to_string(height);
  ggml_tensor* indices = g_.indices(key, [&] {
    std::vector<int32_t> rows(height);
    for (int64_t y = 0; y < height; ++y) rows[y] = static_cast<int32_t>(y * zq_height / height);
    return rows;
  });
  ggml_tensor* where = ggml_view_1d(c, indices, end - first, first * sizeof(int32_t));
  ggml_tensor* rows = ggml_get_rows(c, ggml_reshape_2d(c, zq_, zq_->ne[0] * zq_->ne[1], zq_height), where);
  return ggml_reshape_4d(c, rows, zq_->ne[0], zq_->ne[1], end - first, 1);
}

void Strips::store(ggml_tensor*& image, ggml_tensor* strip, int64_t first, int64_t height) const {
  ggml_context* c = g_.context();
  if (image) {
    ggml_tensor* write = ggml_cpy(c, strip, rows_of(image, first, first + strip->ne[2]));
    image = g_.written(image, write);
    g_.schedule(write);
    return;
  }
  // Padding the first strip makes room for the others. Whole lines are added: CUDA pads at most 65535 rows.
  ggml_tensor* lines = ggml_reshape_2d(c, strip, strip->ne[0] * strip->ne[1], strip->ne[2]);
  lines = ggml_pad(c, lines, 0, static_cast<int>(height - strip->ne[2]), 0, 0);
  image = ggml_reshape_4d(c, lines, strip->ne[0], strip->ne[1], height, 1);
  g_.schedule(image);
}

}  // namespace kandinsky
