// What stands between an image and the convolution or product that reads it.
#pragma once

#include "core/graph.h"
#include "core/weights.h"

namespace kandinsky {

class GroupStatistics;
struct Norm2d;

/// A channels-last image, ne = {C, W, H, B}; or two with their channels side by side, never copied into one.
struct Image {
  Image(ggml_tensor* x) : x(x) {}  // NOLINT: an image is what it is
  ggml_tensor* x;
  ggml_tensor* beside = nullptr;
  int64_t channels() const { return x->ne[0] + (beside ? beside->ne[0] : 0); }
};

/// Both images' channels side by side: a real concat only where no kernel reads two images as one.
Image side_by_side(Graph& g, ggml_tensor* x, ggml_tensor* beside);

/// An image and what is done with it, in this order, before it is used.
struct ImageInput {
  ImageInput(ggml_tensor* x) : image(x) {}
  ImageInput(const Image& image) : image(image) {}

  Image image;
  const Norm2d* norm = nullptr;
  // Of the whole image where this is a part of one (without a second image beside it); null: the norm's statistics are
  // this image's own.
  const GroupStatistics* statistics = nullptr;
  ggml_tensor* zq = nullptr;           // see Norm2d
  ggml_tensor* scale_shift = nullptr;  // {2 C, B}: y * (1 + scale) + shift after the norm ("scale_shift")
  bool silu = false;
  Resample resample = Resample::none;
};

/// The result as a float32 image.
ggml_tensor* image_of(Graph& g, const ImageInput& input);

/// The result as the operand of products, ne = {even(C), W, H, B} with the CPU kernels, with a border of zeros that is
/// `padding` (0 or 1) wide. Without kernels it is image_of(), and there must be no padding.
ggml_tensor* image_operand(Graph& g, const ImageInput& input, int padding);

/// Rows as the operand of products; without kernels only the activation is applied. x: ne = {C, ...}, contiguous.
ggml_tensor* operand(Graph& g, ggml_tensor* x, bool silu = false);

}  // namespace kandinsky
