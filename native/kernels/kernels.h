// The kernels of the networks: their arguments, which do not say which device they are for, and the table that a device
// or an instruction set fills (kernels/cpu/). What each computes by definition: kernels/reference.h.
//
// Activations are channels-last. The residual stream is float32 [batch][height][width][channels]; what a matrix product
// reads is an "act" buffer in the variant's own element type (bfloat16 where the machine has a bfloat16 dot product,
// float32 elsewhere) that the pass before it writes: `prepare` for convolutions, a product's epilogue, `layer_norm`.
//
// Every kernel is called by all `nth` threads of a team with the same arguments and one shared WorkContext; the threads
// meet at barriers inside, so all of them must call. Results do not depend on the number of threads. A GPU's kernels
// (kernels/cuda/) are put on a stream by thread 0; all addresses but those of the arguments are the GPU's then.
// Nothing here checks its arguments: callers check shapes once, when they build the graph.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace kandinsky {

enum class NumberType { f32, bf16 };  // of activations and packed weights
enum class Activation { none, silu, gelu, quick_gelu };
enum class Resample { none, avg_pool_2x2, nearest_2x };

/// How a product is computed, which also decides how its weights are packed.
enum class Algorithm {
  direct,
  winograd_f2,  // F(2x2,3x3): 2.25 times fewer multiplications
  winograd_f4,  // F(4x4,3x3) with the points 0, +-5/8, +-3/2, inf: 4 times fewer
};

/// What the threads of one call share. `scratch` is 64-byte aligned and at least as large as the kernel asks for; what
/// is in it does not matter. The counters are only touched atomically; `next_task` and `arrived` are zero between
/// calls.
struct alignas(64) WorkContext {
  unsigned char* scratch = nullptr;
  void* stream = nullptr;  // of a GPU: its kernels are put on it and run later
  alignas(64) int next_task = 0;
  alignas(64) int arrived = 0;
  alignas(64) unsigned generation = 0;  // barriers passed
};

/// What weights are stored as, named like ggml's types, whose layouts they have.
enum class StoredType { f32, f16, bf16, q8_0, q6_k, q5_k, q4_k, q5_0, q4_0 };

/// A weight matrix as the file has it: `out_features` rows of `taps` x `in_features` values, input channel fastest.
struct WeightRows {
  const void* data;
  int64_t row_bytes;
  StoredType type;
  int out_features, taps, in_features;
};

/// `count` values of a row, from its first on or from a multiple of 256, as float32. Quantized types: whole blocks.
using ExpandRow = void (*)(const void* row, float* values, int64_t count);

/// Weights of one product: packed once by `pack`, or (packed == nullptr) expanded panel by panel on every call.
struct ProductWeights {
  Algorithm algorithm;
  const void* packed;
  WeightRows rows;  // sizes are read in both cases, data only when nothing is packed
};

struct PackArgs {
  Algorithm algorithm;
  WeightRows rows;
  void* dst;  // packed_size bytes, 64-byte aligned
};

/// The pass that turns the residual stream into the input of a convolution: optional group normalization over one or
/// two sources side by side (a concat without a copy), affine, modulation, SiLU, resampling, zero border, narrowing.
///   y = (x - mean) * rstd * gamma + beta            groups > 0
///   y = y * (1 + scale[b]) + shift[b]               scale != nullptr (resnets with time_embedding_norm scale_shift)
///   y = y * spatial_scale + spatial_shift           spatial_scale != nullptr (MoVQ's SpatialNorm, nearest upsampled)
///   y = silu(y), then resample
struct PrepareArgs {
  const float* src[2];  // [batch][height][width][channels[i]]; src[1] may be null with channels[1] = 0
  int channels[2];
  int batch, height, width;  // of the source
  int groups;
  float eps;
  const double* sums;  // null: normalize by the source's own statistics; else by those of the image that the source is
                       // a part of: [groups][2] as group_sums gives them (batch 1)
  int64_t pixels;      // of that image
  const float *gamma, *beta;              // [channels]
  const float *scale, *shift;             // [batch], rows `modulation_stride` floats apart
  int64_t modulation_stride;
  const float *spatial_scale, *spatial_shift;  // [batch][spatial_height][spatial_width][channels]
  int spatial_height, spatial_width;           // divide height and width
  bool silu;
  Resample resample;
  int pad;       // 0 or 1: width of the zero border written around the result
  bool f32_dst;  // write float32 instead of act
  void* dst;     // [batch][height' + 2 pad][width' + 2 pad][even(channels)]
};

struct LayerNormArgs {
  const float* src;  // [rows][features]
  int rows, features;
  float eps;
  const float *gamma, *beta;
  bool f32_dst;
  void* dst;  // [rows][even(features)] act, or [rows][features] float32
};

/// dst = conv(src) + bias + residual; kernel x kernel taps, direct for any stride, Winograd for 3x3 with stride 1.
struct ConvArgs {
  const void* src;  // act [batch][src_height][src_width][even(in_features)], border included
  int batch, src_height, src_width;
  int height, width;  // of the result
  int kernel, stride;
  int origin;  // row and column of src that tap (0, 0) of pixel (0, 0) reads
  ProductWeights weights;
  const float* bias;      // [out] or null
  const float* residual;  // like dst, or null; may be dst itself
  float* dst;             // [batch][height][width][out]
};

/// dst = activation(src * weights^T + bias) + residual, for linear layers and 1x1 convolutions.
struct GemmArgs {
  const void* src;  // act [rows][src_stride]
  int64_t src_stride;
  int rows;
  ProductWeights weights;
  const float* bias;
  Activation activation;
  const float* residual;  // float32 [rows][residual_stride] or null
  int64_t residual_stride;
  bool f32_dst;
  void* dst;  // [rows][dst_stride]
  int64_t dst_stride;
};

/// softmax(q k^T * scale + mask) v per head, with `added_tokens` keys in front of the `tokens` own ones.
struct AttentionArgs {
  const void *q, *k, *v;  // act, rows q_stride / kv_stride elements apart; head h starts at h * head_dim
  int64_t q_stride, kv_stride;
  const void *added_k, *added_v;  // act [batch][added_tokens], rows added_stride apart; may be null
  int64_t added_stride;
  int batch, heads, head_dim;  // head_dim is even
  int queries, tokens, added_tokens;
  float scale;
  const float* mask;  // added to the scores: rows of added_tokens + tokens, or null
  // Between samples, heads and queries; 0 where they share one.
  int64_t mask_stride, mask_head_stride, mask_query_stride;
  bool f32_dst;
  void* dst;  // rows dst_stride elements apart
  int64_t dst_stride;
};

template <typename Args>
struct Kernel {
  size_t (*scratch_size)(const Args* args, int nth);
  void (*run)(const Args* args, WorkContext* work, int ith, int nth);
};

struct KernelTable {
  const char* name;
  NumberType act_type;
  NumberType weight_type;  // both f32: results as exact as float32 is
  int panel;  // out channels: packed weights are whole panels, and matrices of whole panels may be concatenated
  bool has_winograd;  // else every convolution is direct
  int max_head_dim;   // of attention
  size_t (*packed_size)(Algorithm algorithm, const WeightRows* rows);
  ExpandRow (*expander)(StoredType type);  // null for float32; none on a GPU
  Kernel<PackArgs> pack;
  Kernel<PrepareArgs> prepare;
  /// Statistics of an image that is seen in parts (batch 1): dst, double [groups][2], is the sum and the sum of squares
  /// of the source's values, added to `sums` unless that is null.
  Kernel<PrepareArgs> group_sums;
  Kernel<LayerNormArgs> layer_norm;
  Kernel<ConvArgs> conv;
  Kernel<GemmArgs> gemm;
  Kernel<AttentionArgs> attention;
};

/// The algorithm for a stride-1 3x3 convolution with this result size. Winograd saves multiplications but its weights
/// take 1.8 (F2) or 4 (F4) times the memory, which matters where they are packed: the small images of a UNet have most
/// of its weights. A convolution with few results is direct: it would not repay the transform of its input, and as the
/// last one of a network (UNet: 384 to 8 channels) all of F4's rounding, 1 %, would be the network's error.
Algorithm choose_algorithm(int height, int width, int in_features, int out_features, bool packed);

inline int even(int channels) { return (channels + 1) & ~1; }

}  // namespace kandinsky
