// Encoder and decoder of a convolutional autoencoder (diffusers' Encoder and Decoder in autoencoders/vae.py): MoVQ, and
// without spatial norms other KL autoencoders.
//
// Easy to get wrong:
// - Downsampling pads only on the right and at the bottom.
// - One attention head as wide as the image has channels.
// - SpatialNorm, in decoders only, is modulated by the latents as given, not by what conv_in gets.
//
// What has the picture's full size can be computed in tiles (layers/tiles.h): the next level has a quarter of its pixels.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "layers/attention.h"
#include "layers/resnet.h"
#include "layers/tiles.h"

namespace kandinsky {

struct AutoencoderConfig {
  int64_t in_channels, out_channels, latent_channels;
  std::vector<int64_t> channels;      // of each level, the picture's first
  std::vector<bool> down_attentions;  // whether the encoder's levels have attention after each resnet
  std::vector<bool> up_attentions;    // the decoder's, from the smallest size on
  int64_t layers = 1;                 // resnets per level; the decoder has one more
  int groups = 32;
  bool is_spatial = false;  // the decoder's norms are SpatialNorm
  bool has_mid_attention = true;
};

/// Resnets with an attention after each (or none) and a convolution that changes the size (or none).
struct AutoencoderBlock {
  std::vector<ResnetBlock2D> resnets;
  std::vector<ImageAttention> attentions;
  std::optional<Conv2d> sampler;

  ggml_tensor* forward(Graph& g, ggml_tensor* x, ggml_tensor* zq) const;
  /// The same with the resnets in tiles.
  Tiles::Image forward_tiled(Graph& g, const Tiles& tiles, Tiles::Source x, ggml_tensor* zq) const;
};

class Encoder {
 public:
  /// `out_channels`: those of conv_out.
  Encoder(const Weights& w, const AutoencoderConfig& config, int64_t out_channels);
  /// x: {in_channels, W, H, B}, in tiles a batch of one; taps are called `name`.down_blocks.N and `name`.mid_block.
  ggml_tensor* forward(Graph& g, ggml_tensor* x, bool tiled, const std::string& name) const;

 private:
  ggml_tensor* first_block_tiled(Graph& g, ggml_tensor* x) const;

  Conv2d conv_in_, conv_out_;
  std::vector<AutoencoderBlock> blocks_;
  AutoencoderBlock mid_block_;
  Norm2d conv_norm_out_;
};

class Decoder {
 public:
  Decoder(const Weights& w, const AutoencoderConfig& config);
  /// x: {latent_channels, w, h, B}; zq: see Norm2d. Taps are called `name`.mid_block and `name`.up_blocks.N.
  ggml_tensor* forward(Graph& g, ggml_tensor* x, ggml_tensor* zq, const std::string& name) const;
  ggml_tensor* forward_tiled(Graph& g, ggml_tensor* x, ggml_tensor* zq) const;

 private:
  Conv2d conv_in_, conv_out_;
  AutoencoderBlock mid_block_;
  std::vector<AutoencoderBlock> blocks_;
  Norm2d conv_norm_out_;
};

}  // namespace kandinsky
