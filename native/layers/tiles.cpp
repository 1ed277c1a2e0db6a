#include "layers/tiles.h"

#include <algorithm>

namespace kandinsky {

namespace {

// Of Winograd's largest tile. Tiles of an image also begin at whole runs of the kernels' sums, which are 32 pixels.
constexpr int64_t winograd_rows = 4;
constexpr int64_t least_tile_rows = 32;
// LoadedNetwork::make_graph counts on it: nodes are made for each tile.
constexpr int64_t max_tiles = 32;

int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

int64_t height_of(const Tiles::Image& image) {
  int64_t height = 0;
  for (const ggml_tensor* tile : image) height += tile->ne[2];
  return height;
}

int64_t scale_of(const Tiles::Pass& convolution) {
  return convolution.resample == Resample::nearest_2x ? 2 : 1;
}

int64_t convolved_height(const Tiles::Pass& convolution, int64_t height) {
  const Convolution& conv = convolution.conv->convolution;
  const int64_t padding = conv.padding_before + conv.padding_after;
  return (scale_of(convolution) * height + padding - conv.kernel) / conv.stride + 1;
}

}  // namespace

Tiles::RowStream::RowStream(const Tiles& tiles, const Source& source)
    : tiles_(tiles), convolution_(source.convolution), height_(height_of(source.image)) {
  if (!convolution_) {
    image_ = source.image;
    return;
  }
  input_ = std::make_unique<RowStream>(tiles, Source{source.image});
  height_ = convolved_height(*convolution_, height_);
}

Tiles::RowStream::RowStream(const Tiles& tiles, const Pass& convolution, RowStream input)
    : tiles_(tiles),
      convolution_(convolution),
      input_(std::make_unique<RowStream>(std::move(input))),
      height_(convolved_height(convolution, input_->height())) {}

ggml_tensor* Tiles::RowStream::rows(int64_t first, int64_t end) {
  if (is_stored()) return stored_rows(first, end);
  if (end > end_) extend(first, std::min(height_, round_up(end, winograd_rows)));
  return tiles_.rows_of(window_, first - first_, end - first_);
}

ggml_tensor* Tiles::RowStream::stored_rows(int64_t first, int64_t end) const {
  ggml_tensor* rows = nullptr;
  int64_t top = 0;
  for (ggml_tensor* tile : image_) {
    const int64_t from = std::max(first, top), to = std::min(end, top + tile->ne[2]);
    if (from < to) {
      ggml_tensor* part = tiles_.rows_of(tile, from - top, to - top);
      rows = rows ? ggml_concat(tiles_.g_.context(), rows, part, 2) : part;
    }
    top += tile->ne[2];
  }
  return rows;
}

void Tiles::RowStream::extend(int64_t first, int64_t end) {
  Graph& g = tiles_.g_;
  ggml_tensor* kept = nullptr;
  if (first < end_) {
    // Before the new rows are made, so that the old window's memory is free for them.
    kept = ggml_cont(g.context(), tiles_.rows_of(window_, first - first_, end_ - first_));
    g.schedule(kept);
  }
  ggml_tensor* added = tiles_.convolved_rows(*convolution_, *input_, end_, end, nullptr);
  window_ = kept ? ggml_concat(g.context(), kept, added, 2) : added;
  first_ = std::min(first, end_);
  end_ = end;
}

Tiles::Image Tiles::resnet(const ResnetBlock2D& resnet, const Source& x) const {
  GroupStatistics statistics1(resnet.norm1.norm.groups), statistics2(resnet.norm2.norm.groups);
  const Pass conv1{&resnet.conv1, &resnet.norm1, &statistics1};
  const Pass conv2{&resnet.conv2, &resnet.norm2, &statistics2};

  RowStream input(*this, x);
  const int64_t height = input.height();
  Image residual;
  each_tile(height, [&](int64_t first, int64_t end) {
    ggml_tensor* tile = input.rows(first, end);
    g_.ops().add_statistics(g_, statistics1, tile);
    residual.push_back(resnet.conv_shortcut ? resnet.conv_shortcut->forward(g_, tile) : tile);
    g_.schedule(residual.back());
  });
  const Source again = resnet.conv_shortcut ? x : Source{residual};

  add_all(statistics2, RowStream(*this, conv1, RowStream(*this, again)));

  RowStream hidden(*this, conv1, RowStream(*this, again));
  Image result;
  each_tile(height, [&](int64_t first, int64_t end) {
    result.push_back(convolved_rows(conv2, hidden, first, end, residual[result.size()]));
    g_.schedule(result.back());
  });
  return result;
}

ggml_tensor* Tiles::convolved(const Conv2d& conv, const Norm2d* norm, const Image& x) const {
  GroupStatistics statistics(norm ? norm->norm.groups : 1);
  if (norm) add_all(statistics, RowStream(*this, Source{x}));
  const Pass convolution{&conv, norm, &statistics};
  RowStream input(*this, Source{x});
  const int64_t height = convolved_height(convolution, input.height());
  ggml_tensor* result = nullptr;
  each_early_tile(height, [&](int64_t first, int64_t end) {
    store(result, convolved_rows(convolution, input, first, end, nullptr), first, height);
  });
  return result;
}

ggml_tensor* Tiles::joined(const Image& x) const {
  ggml_tensor* result = nullptr;
  int64_t first = 0;
  for (ggml_tensor* tile : x) {
    store(result, tile, first, height_of(x));
    first += tile->ne[2];
  }
  return result;
}

void Tiles::each_tile(int64_t height, const Visit& visit) const {
  const int64_t count = std::max(least_tile_rows, round_up((height + max_tiles - 1) / max_tiles, 2 * winograd_rows));
  for (int64_t first = 0; first < height; first += count) visit(first, std::min(height, first + count));
}

void Tiles::each_early_tile(int64_t height, const Visit& visit) const {
  int64_t done = 0;
  each_tile(height, [&](int64_t, int64_t end) {
    if (end < height) end -= winograd_rows;
    visit(done, end);
    done = end;
  });
}

void Tiles::add_all(GroupStatistics& statistics, RowStream image) const {
  const auto add = [&](int64_t first, int64_t end) { g_.ops().add_statistics(g_, statistics, image.rows(first, end)); };
  image.is_stored() ? each_tile(image.height(), add) : each_early_tile(image.height(), add);
}

ggml_tensor* Tiles::convolved_rows(const Pass& convolution, RowStream& input, int64_t first, int64_t end,
                                    ggml_tensor* residual) const {
  const Convolution& conv = convolution.conv->convolution;
  const int64_t scale = scale_of(convolution), stride = conv.stride;
  const int64_t before = first * stride - conv.padding_before;
  const int64_t after = (end - 1) * stride + conv.kernel - conv.padding_before;
  const int64_t from = std::max<int64_t>(0, before) / scale;
  const int64_t to = std::min(input.height(), round_up(after, scale) / scale);
  ImageInput x(input.rows(from, to));
  x.resample = convolution.resample;
  if (convolution.norm) {
    const Norm2d& norm = *convolution.norm;
    ggml_tensor* zq = norm.is_spatial ? zq_rows(from, to, input.height()) : nullptr;
    x.norm = norm.with(g_, zq, convolution.statistics);
    x.silu = true;
  }
  const Tile tile{first - from * scale / stride, end - first, convolved_height(convolution, input.height())};
  return convolution.conv->forward(g_, x, residual, &tile);
}

ggml_tensor* Tiles::rows_of(ggml_tensor* image, int64_t first, int64_t end) const {
  if (first == 0 && end == image->ne[2]) return image;
  return ggml_view_4d(g_.context(), image, image->ne[0], image->ne[1], end - first, 1, image->nb[1], image->nb[2],
                      image->nb[3], first * image->nb[2]);
}

ggml_tensor* Tiles::zq_rows(int64_t first, int64_t end, int64_t height) const {
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

void Tiles::store(ggml_tensor*& image, ggml_tensor* tile, int64_t first, int64_t height) const {
  ggml_context* c = g_.context();
  if (image) {
    ggml_tensor* write = ggml_cpy(c, tile, rows_of(image, first, first + tile->ne[2]));
    image = g_.written(image, write);
    g_.schedule(write);
    return;
  }
  // Padding the first tile makes room for the others. Whole lines are added: CUDA pads at most 65535 rows.
  ggml_tensor* lines = ggml_reshape_2d(c, tile, tile->ne[0] * tile->ne[1], tile->ne[2]);
  lines = ggml_pad(c, lines, 0, static_cast<int>(height - tile->ne[2]), 0, 0);
  image = ggml_reshape_4d(c, lines, tile->ne[0], tile->ne[1], height, 1);
  g_.schedule(image);
}

}  // namespace kandinsky
