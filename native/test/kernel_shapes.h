// The shapes that kernels are tested and timed at: one table for both. Edges (odd sizes, ragged tiles, partial panels and
// vectors, one channel block) are only tested; shapes of the networks are timed, and tested where the plain reference
// takes them in a moment.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace kandinsky::test {

enum class Shape { edge, network };

struct ConvShape {
  Shape shape;
  int batch, height, width, in, out, kernel, stride;
  bool bias, residual;
  double multiplications() const { return 1.0 * batch * height * width * in * out * kernel * kernel / stride / stride; }
};

inline constexpr ConvShape conv_shapes[] = {
    {Shape::edge, 1, 8, 8, 64, 64, 3, 1, true, true},    {Shape::edge, 2, 7, 5, 32, 70, 3, 1, true, false},
    {Shape::edge, 1, 9, 4, 4, 384, 3, 1, true, false},   {Shape::edge, 3, 6, 6, 96, 8, 3, 1, true, true},
    {Shape::edge, 2, 8, 8, 9, 16, 3, 1, false, false},   {Shape::edge, 1, 8, 10, 32, 32, 3, 2, true, false},
    {Shape::edge, 4, 5, 5, 48, 130, 1, 1, true, true},   {Shape::edge, 1, 3, 3, 640, 64, 3, 1, false, true},
    {Shape::edge, 1, 16, 16, 256, 3, 3, 1, true, false}, {Shape::edge, 1, 1, 1, 16, 64, 3, 1, true, false},
    {Shape::edge, 3, 6, 9, 96, 8, 3, 1, false, true},    {Shape::edge, 4, 13, 11, 16, 130, 3, 1, true, true},
    {Shape::edge, 1, 24, 32, 272, 48, 3, 1, true, false}, {Shape::edge, 1, 56, 56, 48, 32, 3, 1, true, true},
    {Shape::edge, 2, 8, 8, 512, 400, 3, 1, true, true},
    // a guided step of 2.2's UNet at 512 px
    {Shape::network, 2, 64, 64, 384, 384, 3, 1, false, true},  {Shape::network, 2, 64, 64, 768, 768, 3, 1, false, true},
    {Shape::network, 2, 64, 64, 1152, 384, 3, 1, false, true}, {Shape::network, 2, 32, 32, 768, 768, 3, 1, false, true},
    {Shape::network, 2, 32, 32, 1920, 768, 3, 1, false, true}, {Shape::network, 2, 16, 16, 1152, 1152, 3, 1, false, true},
    {Shape::network, 2, 16, 16, 2304, 1152, 3, 1, false, true}, {Shape::network, 2, 8, 8, 1536, 1536, 3, 1, false, true},
    {Shape::network, 2, 8, 8, 3072, 1536, 3, 1, false, true},  {Shape::network, 2, 4, 4, 3072, 1536, 3, 1, false, true},
    // MoVQ at 512 px
    {Shape::network, 1, 128, 128, 512, 512, 3, 1, false, true}, {Shape::network, 1, 256, 256, 256, 256, 3, 1, false, true},
    {Shape::network, 1, 512, 512, 128, 128, 3, 1, false, true}};

struct GemmShape {
  Shape shape;
  int rows, in, out;
  Activation activation;
  bool bias, residual, f32_dst;
  double multiplications() const { return 1.0 * rows * in * out; }
};

inline constexpr GemmShape gemm_shapes[] = {
    {Shape::edge, 1, 64, 64, Activation::none, true, true, true},
    {Shape::edge, 81, 128, 200, Activation::gelu, true, false, false},
    {Shape::edge, 162, 96, 64, Activation::quick_gelu, false, false, false},
    {Shape::edge, 7, 1280, 66, Activation::silu, true, true, true},
    {Shape::edge, 200, 32, 16, Activation::none, false, true, false},
    {Shape::edge, 5, 77, 130, Activation::gelu, true, false, true},
    {Shape::edge, 1100, 256, 64, Activation::none, true, false, true},
    // 2.2's UNet, and its prior on 2 x 81 tokens
    {Shape::network, 2048, 768, 768, Activation::none, false, false, true},
    {Shape::network, 2048, 1920, 768, Activation::none, false, false, true},
    {Shape::network, 8192, 1152, 384, Activation::none, false, false, true},
    {Shape::network, 512, 1152, 1152, Activation::none, false, false, true},
    {Shape::network, 128, 1536, 1536, Activation::none, false, false, true},
    {Shape::network, 162, 2048, 2048, Activation::none, false, false, true},
    {Shape::network, 162, 2048, 8192, Activation::gelu, false, false, false},
    {Shape::network, 162, 8192, 2048, Activation::none, false, false, true}};

struct AttentionShape {
  Shape shape;
  int batch, heads, head_dim, queries, tokens, added_tokens;
  enum Mask { none, per_sample, per_head, per_key } mask;
  double multiplications() const {
    return 2.0 * batch * heads * head_dim * queries * (tokens + added_tokens);
  }
};

inline constexpr AttentionShape attention_shapes[] = {
    {Shape::edge, 1, 1, 64, 16, 16, 0, AttentionShape::none},    {Shape::edge, 2, 3, 64, 49, 49, 10, AttentionShape::none},
    {Shape::edge, 2, 2, 64, 81, 81, 0, AttentionShape::per_sample},     {Shape::edge, 1, 2, 32, 5, 7, 32, AttentionShape::none},
    {Shape::edge, 1, 1, 512, 100, 100, 0, AttentionShape::none}, {Shape::edge, 3, 2, 80, 50, 130, 0, AttentionShape::per_sample},
    {Shape::edge, 1, 2, 48, 3, 1, 0, AttentionShape::none},
    {Shape::edge, 2, 3, 64, 37, 51, 0, AttentionShape::per_head},
    {Shape::edge, 2, 2, 64, 33, 77, 0, AttentionShape::per_key},
    // 2.2's UNet at 512 px, its prior, and MoVQ
    {Shape::network, 2, 12, 64, 1024, 1024, 32, AttentionShape::none}, {Shape::network, 2, 18, 64, 256, 256, 32, AttentionShape::none},
    {Shape::network, 2, 24, 64, 64, 64, 32, AttentionShape::none},     {Shape::network, 2, 32, 64, 81, 81, 0, AttentionShape::none},
    {Shape::network, 1, 1, 512, 4096, 4096, 0, AttentionShape::none},
    // Kandinsky 3's T5 and UNet at 512 px
    {Shape::network, 1, 16, 256, 128, 128, 0, AttentionShape::per_head},
    {Shape::network, 2, 12, 64, 1024, 77, 0, AttentionShape::per_key}};

struct PrepareShape {
  Shape shape;
  int batch, height, width, channels0, channels1, groups;
  bool affine, modulation;
  int spatial;  // how many times smaller the modulation image is; 0 for none
  bool silu;
  Resample resample;
  int pad;
  bool f32_dst;
  double multiplications() const { return 100.0 * batch * height * width * (channels0 + channels1); }
};

inline constexpr PrepareShape prepare_shapes[] = {
    {Shape::edge, 1, 8, 8, 64, 0, 32, true, false, 0, true, Resample::none, 1, false},
    {Shape::edge, 2, 5, 7, 40, 24, 16, true, true, 0, true, Resample::none, 1, false},
    {Shape::edge, 2, 33, 32, 36, 28, 32, true, true, 0, false, Resample::none, 0, false},
    {Shape::edge, 1, 8, 4, 32, 0, 8, true, false, 4, true, Resample::none, 1, false},
    {Shape::edge, 3, 6, 4, 48, 0, 4, false, true, 0, true, Resample::avg_pool_2x2, 1, false},
    {Shape::edge, 1, 4, 6, 20, 12, 2, true, false, 0, true, Resample::nearest_2x, 1, false},
    {Shape::edge, 2, 4, 4, 9, 0, 0, false, false, 0, false, Resample::none, 1, false},
    {Shape::edge, 2, 4, 4, 8, 11, 0, false, false, 0, true, Resample::nearest_2x, 1, true},
    {Shape::edge, 1, 6, 6, 16, 16, 0, false, false, 0, false, Resample::avg_pool_2x2, 0, true},
    {Shape::edge, 4, 16, 8, 128, 0, 1, true, false, 2, false, Resample::none, 0, true},
    // 2.2's UNet at 512 px, and MoVQ's decoder
    {Shape::network, 2, 64, 64, 384, 0, 32, true, true, 0, true, Resample::none, 1, false},
    {Shape::network, 2, 64, 64, 1152, 0, 32, true, true, 0, true, Resample::none, 1, false},
    {Shape::network, 2, 32, 32, 1920, 0, 32, true, true, 0, true, Resample::none, 1, false},
    {Shape::network, 1, 512, 512, 128, 0, 32, true, false, 8, true, Resample::none, 1, false}};

}  // namespace kandinsky::test
