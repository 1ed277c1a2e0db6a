// What the kernels compute, by definition: one loop per index, float32 in and out, sums in double. For tests.
#pragma once

#include "kernels/kernels.h"

namespace kandinsky::reference {

/// Value by value after the definitions in ggml-common.h.
ExpandRow expander(StoredType type);

/// src [batch][height][width][in] float32 without border -> dst; weights [out][kernel][kernel][in].
void conv(const float* src, int batch, int src_height, int src_width, int in, const float* weights, int out, int kernel,
          int stride, int pad, int height, int width, const float* bias, const float* residual, float* dst);

/// dst[row] = activation(weights * src[row] + bias) + residual[row].
void gemm(const float* src, int rows, int in, const float* weights, int out, const float* bias, Activation activation,
          const float* residual, float* dst);

/// `dst` float32, laid out as PrepareArgs says; reads the fields of `args` other than dst, f32_dst, sums and pixels.
void prepare(const PrepareArgs& args, float* dst);

void layer_norm(const LayerNormArgs& args, float* dst);

/// All operands float32 and dense: q [batch][queries][heads * head_dim], k and v with the added tokens already in
/// front.
void attention(const AttentionArgs& args, const float* q, const float* k, const float* v, float* dst);

}  // namespace kandinsky::reference
