#include "layers/autoencoder.h"

namespace kandinsky {

namespace {

AutoencoderBlock load_block(const Weights& w, int64_t in, int64_t out, int64_t count, int64_t attention_count,
                            const Norm2d::Options& norm) {
  AutoencoderBlock block;
  for (int64_t j = 0; j < count; ++j) {
    block.resnets.push_back({w["resnets"][j], j == 0 ? in : out, out, {norm, 0, Resample::none}});
    if (j < attention_count) block.attentions.push_back({w["attentions"][j], out, {1, 0, norm}});
  }
  return block;
}

AutoencoderBlock load_mid_block(const Weights& w, int64_t channels, bool has_attention, const Norm2d::Options& norm) {
  return load_block(w, channels, channels, 2, has_attention ? 1 : 0, norm);
}

/// The first and last convolutions meet latents and pictures themselves, where an error is a fault of the picture.
Conv2d outer_conv(const Weights& w, int64_t in, int64_t out) { return {w.at_least(Precision::exact), in, out, 3}; }

ImageInput enlarged(ggml_tensor* x) {
  ImageInput input(x);
  input.resample = Resample::nearest_2x;
  return input;
}

ggml_tensor* out_layers(Graph& g, const Norm2d& norm, const Conv2d& conv, ggml_tensor* x, ggml_tensor* zq) {
  ImageInput input(x);
  input.norm = norm.with(g, zq);
  input.silu = true;
  return conv.forward(g, input);
}

}  // namespace

ggml_tensor* AutoencoderBlock::forward(Graph& g, ggml_tensor* x, ggml_tensor* zq) const {
  for (size_t i = 0; i < resnets.size(); ++i) {
    x = resnets[i].forward(g, x, {}, zq);
    if (i < attentions.size()) x = attentions[i].forward(g, x, {}, zq);
  }
  return x;
}

Tiles::Image AutoencoderBlock::forward_tiled(Graph& g, const Tiles& tiles, Tiles::Source x, ggml_tensor* zq) const {
  for (size_t i = 0; i < resnets.size(); ++i) {
    x = {tiles.resnet(resnets[i], x)};
    if (i < attentions.size()) x = {{attentions[i].forward(g, tiles.joined(x.image), {}, zq)}};
  }
  return x.image;
}

Encoder::Encoder(const Weights& w, const AutoencoderConfig& config, int64_t out_channels)
    : conv_in_(outer_conv(w["conv_in"], config.in_channels, config.channels[0])) {
  const Norm2d::Options norm{config.groups, 1e-6f, 0};
  int64_t in = config.channels[0];
  for (size_t i = 0; i < config.channels.size(); ++i) {
    const int64_t out = config.channels[i];
    const Weights block = w["down_blocks"][i];
    blocks_.push_back(load_block(block, in, out, config.layers, config.down_attentions[i] ? config.layers : 0, norm));
    if (i + 1 < config.channels.size()) {
      blocks_.back().sampler = Conv2d(block["downsamplers"][0]["conv"], out, out, 3, {2, 0, 1, true});
    }
    in = out;
  }
  mid_block_ = load_mid_block(w["mid_block"], in, config.has_mid_attention, norm);
  conv_norm_out_ = Norm2d(w["conv_norm_out"], in, norm);
  conv_out_ = outer_conv(w["conv_out"], in, out_channels);
}

ggml_tensor* Encoder::first_block_tiled(Graph& g, ggml_tensor* x) const {
  const AutoencoderBlock& block = blocks_[0];
  const Tiles tiles(g, nullptr);
  const Tiles::Image image = block.forward_tiled(g, tiles, {{x}, {{&conv_in_}}}, nullptr);
  return block.sampler ? tiles.convolved(*block.sampler, nullptr, image) : tiles.joined(image);
}

ggml_tensor* Encoder::forward(Graph& g, ggml_tensor* x, bool tiled, const std::string& name) const {
  x = tiled ? first_block_tiled(g, x) : conv_in_.forward(g, x);
  for (size_t i = tiled ? 1 : 0; i < blocks_.size(); ++i) {
    x = blocks_[i].forward(g, x, nullptr);
    if (blocks_[i].sampler) x = blocks_[i].sampler->forward(g, x);
    g.tap(name + ".down_blocks." + std::to_string(i), x, 4);
  }
  x = mid_block_.forward(g, x, nullptr);
  g.tap(name + ".mid_block", x, 4);
  return out_layers(g, conv_norm_out_, conv_out_, x, nullptr);
}

Decoder::Decoder(const Weights& w, const AutoencoderConfig& config) {
  const Norm2d::Options norm{config.groups, 1e-6f, config.is_spatial ? config.latent_channels : 0};
  const std::vector<int64_t> channels(config.channels.rbegin(), config.channels.rend());
  conv_in_ = outer_conv(w["conv_in"], config.latent_channels, channels[0]);
  mid_block_ = load_mid_block(w["mid_block"], channels[0], config.has_mid_attention, norm);
  int64_t in = channels[0];
  for (size_t i = 0; i < channels.size(); ++i) {
    const int64_t out = channels[i], count = config.layers + 1;
    const Weights block = w["up_blocks"][i];
    blocks_.push_back(load_block(block, in, out, count, config.up_attentions[i] ? count : 0, norm));
    if (i + 1 < channels.size()) blocks_.back().sampler = Conv2d(block["upsamplers"][0]["conv"], out, out, 3);
    in = out;
  }
  conv_norm_out_ = Norm2d(w["conv_norm_out"], in, norm);
  conv_out_ = outer_conv(w["conv_out"], in, config.out_channels);
}

ggml_tensor* Decoder::forward(Graph& g, ggml_tensor* x, ggml_tensor* zq, const std::string& name) const {
  x = mid_block_.forward(g, conv_in_.forward(g, x), zq);
  g.tap(name + ".mid_block", x, 4);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    x = blocks_[i].forward(g, x, zq);
    if (blocks_[i].sampler) x = blocks_[i].sampler->forward(g, enlarged(x));
    g.tap(name + ".up_blocks." + std::to_string(i), x, 4);
  }
  return out_layers(g, conv_norm_out_, conv_out_, x, zq);
}

/// The last block's input, enlarged, has the most channels of the picture's size.
ggml_tensor* Decoder::forward_tiled(Graph& g, ggml_tensor* x, ggml_tensor* zq) const {
  x = mid_block_.forward(g, conv_in_.forward(g, x), zq);
  Tiles::Source source{{x}};
  const size_t last = blocks_.size() - 1;
  for (size_t i = 0; i < last; ++i) {
    const AutoencoderBlock& block = blocks_[i];
    x = block.forward(g, x, zq);
    source = {{x}, {{&*block.sampler, nullptr, nullptr, Resample::nearest_2x}}};
    if (i + 1 < last) x = block.sampler->forward(g, enlarged(x));
  }
  const Tiles tiles(g, zq);
  const Tiles::Image image = blocks_[last].forward_tiled(g, tiles, source, zq);
  return tiles.convolved(conv_out_, &conv_norm_out_, image);
}

}  // namespace kandinsky
