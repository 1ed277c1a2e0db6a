// Convolutions and resnets on an image in horizontal tiles: the results that they have on the whole image, in the
// memory of little more than one such image. With the CPU kernels they are equal bit for bit, because tiles begin where
// the kernels' own tiles and partial sums do.
//
// Group norms stand in the way, because their statistics are the whole image's: each takes a pass over the tiles
// before the pass that uses it. Nothing is kept between passes but the image; what lies between it and the norm is
// computed again. So a resnet takes three passes: statistics of its input, statistics of conv1's result, and the sum,
// of which each tile takes the place of one of the input.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "layers/resnet.h"

namespace kandinsky {

class Tiles {
 public:
  /// From top to bottom, ne = {C, W, rows, 1} each, contiguous; a whole image is one tile.
  using Image = std::vector<ggml_tensor*>;

  /// What is done with an image: SiLU(norm) if there is one, then resampling (none or nearest_2x), then conv.
  struct Pass {
    const Conv2d* conv;
    const Norm2d* norm = nullptr;
    const GroupStatistics* statistics = nullptr;  // of the whole image, if there is a norm
    Resample resample = Resample::none;
  };

  /// An image, or what a convolution makes of it, which is then never kept whole.
  struct Source {
    Image image;
    std::optional<Pass> convolution = {};
  };

  /// `zq`: see Norm2d, null without SpatialNorm; a batch of one.
  Tiles(Graph& g, ggml_tensor* zq) : g_(g), zq_(zq) {}

  /// Without time embedding and resampling.
  Image resnet(const ResnetBlock2D& resnet, const Source& x) const;
  /// conv(silu(norm(x))) or without a norm conv(x), as one image.
  ggml_tensor* convolved(const Conv2d& conv, const Norm2d* norm, const Image& x) const;
  ggml_tensor* joined(const Image& x) const;

 private:
  /// An image's rows from top to bottom, made when they are asked for if the source has a convolution.
  class RowStream {
   public:
    RowStream(const Tiles& tiles, const Source& source);
    int64_t height() const { return height_; }
    bool is_stored() const { return !convolution_; }
    /// Rows `first` to `end`; `first` must not be less than in the call before.
    ggml_tensor* rows(int64_t first, int64_t end);

   private:
    friend class Tiles;
    RowStream(const Tiles& tiles, const Pass& convolution, RowStream input);
    ggml_tensor* stored_rows(int64_t first, int64_t end) const;
    void extend(int64_t first, int64_t end);

    const Tiles& tiles_;
    Image image_;  // if it is stored; otherwise:
    std::optional<Pass> convolution_;
    std::unique_ptr<RowStream> input_;
    ggml_tensor* window_ = nullptr;  // rows first_ to end_
    int64_t first_ = 0, end_ = 0;
    int64_t height_;
  };

  using Visit = std::function<void(int64_t first, int64_t end)>;
  void each_tile(int64_t height, const Visit& visit) const;
  /// Tiles whose lower neighbours need not be there yet for a 3x3 convolution to make them.
  void each_early_tile(int64_t height, const Visit& visit) const;
  void add_all(GroupStatistics& statistics, RowStream image) const;
  /// Rows of what the convolution makes of `input`.
  ggml_tensor* convolved_rows(const Pass& convolution, RowStream& input, int64_t first, int64_t end,
                              ggml_tensor* residual) const;
  ggml_tensor* rows_of(ggml_tensor* image, int64_t first, int64_t end) const;
  /// The latents' row for each of an image's rows.
  ggml_tensor* zq_rows(int64_t first, int64_t end, int64_t height) const;
  /// Writes a tile into an image, which is made for the first one.
  void store(ggml_tensor*& image, ggml_tensor* tile, int64_t first, int64_t height) const;

  Graph& g_;
  ggml_tensor* zq_;
};

}  // namespace kandinsky
