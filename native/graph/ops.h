// The operations that layers are made of, on typed operands. Each device computes them in its own way, which is decided
// once, in models/loaded_network.cpp: composed of ggml's operations anywhere, or by the kernels of a table
// (kernels/kernels.h). Layers and networks know neither.
//
// Images are channels-last, ne = {C, W, H, B}; rows are ne = {C, ...}.
#pragma once

#include <memory>
#include <optional>

#include "ggml.h"
#include "kernels/kernels.h"

namespace kandinsky {

class Device;
class Graph;
class LowRankWeights;
class PackedWeights;

/// What products and attention read: float32 rows, or rows in a form that only these can read. Ops makes and opens them;
/// a layer may keep, reshape along all but the first dimension, and pass them on.
class Operand {
 public:
  Operand() = default;
  explicit Operand(ggml_tensor* tensor) : tensor(tensor) {}
  explicit operator bool() const { return tensor != nullptr; }
  ggml_tensor* tensor = nullptr;
};

/// An image, or two with their channels side by side, never copied into one.
struct Image {
  Image(ggml_tensor* x) : x(x) {}  // so that a single tensor can be passed for one
  ggml_tensor* x;
  ggml_tensor* beside = nullptr;
  int64_t channels() const { return x->ne[0] + (beside ? beside->ne[0] : 0); }
};

/// What a group norm has to know of an image (a batch of one) of which it sees one part at a time.
struct GroupStatistics {
  explicit GroupStatistics(int groups) : groups(groups) {}
  int groups;
  int64_t pixels = 0;
  // Of the parts so far; which of them are used is up to the operations.
  ggml_tensor* sums = nullptr;     // float64 {2, groups}: sums and sums of squares
  ggml_tensor* mean = nullptr;     // {1, groups}
  ggml_tensor* squares = nullptr;  // {1, groups}: sums of squared differences from the mean
};

/// Normalization over groups of adjacent channels, all pixels of a sample together.
struct GroupNormalization {
  ggml_tensor* gamma = nullptr;  // with beta; null: 1 and 0
  ggml_tensor* beta = nullptr;
  int groups = 1;
  float eps = 0;
  const GroupStatistics* statistics = nullptr;  // null: those of the image itself
  // y * spatial_scale + spatial_shift, ne = {C, w, h, B} each, repeated to the image's size, of which w and h are
  // divisors; or null.
  ggml_tensor* spatial_scale = nullptr;
  ggml_tensor* spatial_shift = nullptr;
};

/// An image and what is done with it, in this order, before it is used.
struct ImageInput {
  ImageInput(ggml_tensor* x) : image(x) {}
  ImageInput(const Image& image) : image(image) {}

  Image image;
  std::optional<GroupNormalization> norm;
  ggml_tensor* scale_shift = nullptr;  // {2 C, B}: y * (1 + scale) + shift after the norm ("scale_shift")
  bool silu = false;
  Resample resample = Resample::none;
};

/// Some rows of an image of `height` rows.
struct Tile {
  int64_t first, count, height;
};

/// y = x Wᵀ + b; weight: ne = {in, out}, any type; bias: float32 or null.
struct Product {
  ggml_tensor* weight = nullptr;
  ggml_tensor* bias = nullptr;
};

/// How near to a network's result a convolution is: rounding that the layers after it average out is the result's own
/// error where none follow.
enum class Sensitivity { inner, near_output };

struct Convolution {
  Product product;  // weight: ne = {kernel * kernel * in, out}, see core/types.h
  int kernel = 1;
  int stride = 1;
  // Rows and columns of zeros on the top and left, and on the bottom and right.
  int padding_before = 0;
  int padding_after = 0;
  Sensitivity sensitivity = Sensitivity::inner;
};

struct LayerNormalization {
  ggml_tensor* gamma = nullptr;
  ggml_tensor* beta = nullptr;
  float eps = 0;
};

/// What attention looks at, ne = {C, tokens, B} each.
struct KeysValues {
  Operand k, v;
};

struct AttentionInput {
  Operand q;  // ne = {C, queries, B}
  KeysValues own;
  int64_t heads = 1;
  ggml_tensor* mask = nullptr;  // added to the scores: float32 {keys, queries or 1, heads or 1, B or 1}
  KeysValues added;             // keys and values in front of `own`, or null
  bool is_scaled = true;        // by 1 / sqrt(head width)
};

class Ops {
 public:
  virtual ~Ops() = default;

  /// Rows as an operand, after SiLU if wanted. x: contiguous; float32, or bfloat16 where its precision is meant.
  virtual Operand operand(Graph& g, ggml_tensor* x, bool silu = false) = 0;
  /// The same of what is done with an image.
  virtual Operand image_operand(Graph& g, const ImageInput& input) = 0;
  /// As a float32 image.
  virtual ggml_tensor* image(Graph& g, const ImageInput& input) = 0;
  /// Both images' channels side by side.
  virtual Image side_by_side(Graph& g, ggml_tensor* x, ggml_tensor* beside) = 0;

  /// activation(x Wᵀ + b) + residual; residual: null, or float32 and shaped like the result.
  virtual ggml_tensor* linear(Graph& g, const Product& product, Operand x, Activation activation = Activation::none,
                              ggml_tensor* residual = nullptr) = 0;
  /// The same where only products will read the result, or only attention with heads of `head_dim`.
  virtual Operand linear_operand(Graph& g, const Product& product, Operand x, Activation activation) = 0;
  virtual Operand projection(Graph& g, const Product& product, Operand x, int64_t head_dim) = 0;

  /// Returns {out, W', H', B} with W' = (W + padding - kernel) / stride + 1. `tile`: null, or the rows of the result to
  /// make, where the input is a part of a batch of one: `first` counts from the row that row 0 of the input gives,
  /// `height` is that of the whole image's result.
  virtual ggml_tensor* conv2d(Graph& g, const Convolution& conv, const ImageInput& input,
                              ggml_tensor* residual = nullptr, const Tile* tile = nullptr) = 0;

  virtual ggml_tensor* layer_norm(Graph& g, const LayerNormalization& norm, ggml_tensor* x) = 0;
  virtual Operand layer_norm_operand(Graph& g, const LayerNormalization& norm, ggml_tensor* x) = 0;

  /// Adds one part, ne = {C, W, H, 1}, contiguous, and computes its share before all that is added to `g` later.
  virtual void add_statistics(Graph& g, GroupStatistics& statistics, ggml_tensor* part) = 0;

  /// softmax(q kᵀ / sqrt(head width) + mask) v for each head; returns {C, queries, B}.
  virtual Operand attention(Graph& g, const AttentionInput& input) = 0;

  // ---- what the graph asks when it is complete
  /// Called once the graph's tensors have got their memory.
  virtual void allocate() {}
  virtual size_t scratch_bytes() const { return 0; }
  /// What allocate() will fill with packed weights.
  virtual size_t unpacked_bytes() const { return 0; }
  /// Floating-point operations, or nothing where they are not counted.
  virtual std::optional<double> flops() const { return std::nullopt; }
};

/// Of operations that every ggml backend has. `adapters`: null, or what is added to products and convolutions.
std::unique_ptr<Ops> make_composed_ops(const LowRankWeights* adapters = nullptr);
/// By the kernels of a table for this device. `packed` null: weights stay as they were loaded and are expanded at each
/// use.
std::unique_ptr<Ops> make_kernel_ops(const KernelTable& kernels, const Device& device, PackedWeights* packed,
                                     const LowRankWeights* adapters = nullptr);

}  // namespace kandinsky
