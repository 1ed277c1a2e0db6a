// VQModel as Kandinsky uses it: MoVQ (https://arxiv.org/abs/2209.09002; diffusers autoencoders/vq_model.py and vae.py).
//
// encode: sample [B, 3, H, W] in -1..1 -> latents [B, 4, h, w] with h = H / 2^(levels - 1), rounded down at each level
// decode: latents [B, 4, h, w] -> sample [B, 3, H, W], about -1..1 but not clamped
//
// Easy to get wrong:
// - The codebook is never used (force_not_quantize), and scaling_factor is never applied.
// - The decoder's norms are modulated by the latents as given, not by post_quant_conv's result.
// - Downsampling pads only on the right and at the bottom.
// - One attention head as wide as the image has channels.
#include "core/error.h"
#include "layers/attention.h"
#include "layers/resnet.h"
#include "layers/strips.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"

namespace kandinsky {

namespace {

struct MovqConfig {
  int64_t in_channels, out_channels, latent_channels, vq_embed_dim, layers;
  std::vector<int64_t> channels;
  std::vector<std::string> down_types, up_types;
  int groups;
  bool is_spatial, has_mid_attention;
};

MovqConfig read_config(const Config& config) {
  config.require("act_fn", std::string("silu"));
  config.require("lookup_from_codebook", false);
  MovqConfig c;
  c.in_channels = size_from(config, "in_channels", 3);
  c.out_channels = size_from(config, "out_channels", 3);
  c.latent_channels = size_from(config, "latent_channels", 3);
  c.vq_embed_dim = size_from(config, "vq_embed_dim", c.latent_channels);
  c.layers = count_from(config, "layers_per_block", 1);
  c.channels = level_channels_from(config);
  const size_t levels = c.channels.size();
  c.down_types = choices_from(config, "down_block_types", {"DownEncoderBlock2D", "AttnDownEncoderBlock2D"}, levels);
  c.up_types = choices_from(config, "up_block_types", {"UpDecoderBlock2D", "AttnUpDecoderBlock2D"}, levels);
  c.groups = static_cast<int>(size_from(config, "norm_num_groups", 32));
  c.is_spatial = choice_from(config, "norm_type", {"group", "spatial"}, "group") == "spatial";
  if (c.is_spatial && c.vq_embed_dim != c.latent_channels) {
    fail(ErrorCode::unsupported_model, "%s config: expected latent_channels (%lld) for vq_embed_dim but received %lld",
         config.component().c_str(), static_cast<long long>(c.latent_channels), static_cast<long long>(c.vq_embed_dim));
  }
  c.has_mid_attention = config.boolean("mid_block_add_attention", true);
  return c;
}

/// Resnets with an attention after each (or none) and a convolution that changes the size (or none).
struct Block {
  std::vector<ResnetBlock2D> resnets;
  std::vector<ImageAttention> attentions;
  std::optional<Conv2d> sampler;

  ggml_tensor* forward(Graph& g, ggml_tensor* x, ggml_tensor* zq) const {
    for (size_t i = 0; i < resnets.size(); ++i) {
      x = resnets[i].forward(g, x, nullptr, zq);
      if (i < attentions.size()) x = attentions[i].forward(g, x, nullptr, zq);
    }
    return x;
  }
  /// The same with the resnets in strips.
  Strips::Image forward_tiled(Graph& g, const Strips& strips, Strips::Source x, ggml_tensor* zq) const {
    for (size_t i = 0; i < resnets.size(); ++i) {
      x = {strips.resnet(resnets[i], x)};
      if (i < attentions.size()) x = {{attentions[i].forward(g, strips.joined(x.image), nullptr, zq)}};
    }
    return x.image;
  }
};

Block load_block(const Weights& w, int64_t in, int64_t out, int64_t count, int64_t attention_count,
                 const Norm2d::Options& norm) {
  Block block;
  for (int64_t j = 0; j < count; ++j) {
    block.resnets.push_back({w["resnets"][j], j == 0 ? in : out, out, {norm, 0, Resample::none}});
    if (j < attention_count) block.attentions.push_back({w["attentions"][j], out, {1, 0, norm}});
  }
  return block;
}

/// Encoder and decoder in one: blocks that shrink and then a mid block, or a mid block and then blocks that grow.
struct Coder {
  Conv2d conv_in, conv_out;
  std::vector<Block> blocks;
  Block mid_block;
  Norm2d conv_norm_out;
};

Coder load_encoder(const Weights& w, const MovqConfig& config) {
  const Norm2d::Options norm{config.groups, 1e-6f, 0};
  Coder encoder;
  encoder.conv_in = Conv2d(w["conv_in"], config.in_channels, config.channels[0], 3);
  int64_t in = config.channels[0];
  for (size_t i = 0; i < config.channels.size(); ++i) {
    const int64_t out = config.channels[i];
    const Weights block = w["down_blocks"][i];
    const bool has_attention = config.down_types[i] == "AttnDownEncoderBlock2D";
    encoder.blocks.push_back(load_block(block, in, out, config.layers, has_attention ? config.layers : 0, norm));
    if (i + 1 < config.channels.size()) {
      encoder.blocks.back().sampler = Conv2d(block["downsamplers"][0]["conv"], out, out, 3, {2, 0, 1, true});
    }
    in = out;
  }
  encoder.mid_block = load_block(w["mid_block"], in, in, 2, config.has_mid_attention ? 1 : 0, norm);
  encoder.conv_norm_out = Norm2d(w["conv_norm_out"], in, norm);
  encoder.conv_out = Conv2d(w["conv_out"], in, config.latent_channels, 3);
  return encoder;
}

Coder load_decoder(const Weights& w, const MovqConfig& config) {
  const Norm2d::Options norm{config.groups, 1e-6f, config.is_spatial ? config.latent_channels : 0};
  const std::vector<int64_t> channels(config.channels.rbegin(), config.channels.rend());
  Coder decoder;
  decoder.conv_in = Conv2d(w["conv_in"], config.latent_channels, channels[0], 3);
  decoder.mid_block = load_block(w["mid_block"], channels[0], channels[0], 2, config.has_mid_attention ? 1 : 0, norm);
  int64_t in = channels[0];
  for (size_t i = 0; i < channels.size(); ++i) {
    const int64_t out = channels[i], count = config.layers + 1;
    const Weights block = w["up_blocks"][i];
    const bool has_attention = config.up_types[i] == "AttnUpDecoderBlock2D";
    decoder.blocks.push_back(load_block(block, in, out, count, has_attention ? count : 0, norm));
    if (i + 1 < channels.size()) decoder.blocks.back().sampler = Conv2d(block["upsamplers"][0]["conv"], out, out, 3);
    in = out;
  }
  decoder.conv_norm_out = Norm2d(w["conv_norm_out"], in, norm);
  decoder.conv_out = Conv2d(w["conv_out"], in, config.out_channels, 3);
  return decoder;
}

ImageInput enlarged(ggml_tensor* x) {
  ImageInput input(x);
  input.resample = Resample::nearest_2x;
  return input;
}

class VQModel : public Model {
 public:
  VQModel(const Config& config, const Weights& w)
      : raw_config_(config),
        config_(read_config(config)),
        encoder_(load_encoder(w["encoder"], config_)),
        quant_conv_(w["quant_conv"], config_.latent_channels, config_.vq_embed_dim, 1),
        post_quant_conv_(w["post_quant_conv"], config_.vq_embed_dim, config_.latent_channels, 1),
        decoder_(load_decoder(w["decoder"], config_)) {}

  std::vector<std::string> methods() const override { return {"encode", "decode"}; }
  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override {
    method == "encode" ? build_encode(g, false) : build_decode(g);
  }
  bool has_tiles() const override { return true; }
  void build_tiled(const std::string& method, Graph& g) const override {
    method == "encode" ? build_encode(g, true) : build_tiled_decode(g);
  }

 private:
  void build_encode(Graph& g, bool tiled) const;
  ggml_tensor* encode_first_block_tiled(Graph& g) const;
  void build_decode(Graph& g) const;
  void build_tiled_decode(Graph& g) const;
  ggml_tensor* decode_mid_block(Graph& g, ggml_tensor* latents) const;

  Config raw_config_;
  MovqConfig config_;
  Coder encoder_;
  Conv2d quant_conv_, post_quant_conv_;
  Coder decoder_;
};

HostTensors VQModel::prepare(const std::string& method, const HostTensors& inputs) const {
  Inputs in(raw_config_, inputs);
  HostTensors prepared;
  if (method == "decode") {
    prepared["latents"] = in.real("latents", {Inputs::any, config_.vq_embed_dim, Inputs::any, Inputs::any});
  } else {
    const HostTensor& sample = prepared["sample"] =
        in.real("sample", {Inputs::any, config_.in_channels, Inputs::any, Inputs::any});
    const int64_t least = int64_t{1} << (config_.channels.size() - 1);
    if (sample.shape[2] < least || sample.shape[3] < least) {
      fail(ErrorCode::shape_mismatch,
           "%s: expected at least %lld for height and width of sample but received %lld x %lld",
           raw_config_.component().c_str(), static_cast<long long>(least), static_cast<long long>(sample.shape[2]),
           static_cast<long long>(sample.shape[3]));
    }
  }
  in.finish();
  return prepared;
}

ggml_tensor* out_layers(Graph& g, const Coder& coder, ggml_tensor* x, ggml_tensor* zq) {
  ImageInput input(x);
  input.norm = &coder.conv_norm_out;
  input.zq = zq;
  input.silu = true;
  return coder.conv_out.forward(g, input);
}

/// What has the picture's full size is tiled: the next level has a quarter of its pixels.
ggml_tensor* VQModel::encode_first_block_tiled(Graph& g) const {
  const Block& block = encoder_.blocks[0];
  const Strips strips(g, nullptr);
  const Strips::Image x = block.forward_tiled(g, strips, {{g.image_input("sample")}, {{&encoder_.conv_in}}}, nullptr);
  return block.sampler ? strips.convolved(*block.sampler, nullptr, x) : strips.joined(x);
}

void VQModel::build_encode(Graph& g, bool tiled) const {
  ggml_tensor* x = tiled ? encode_first_block_tiled(g) : encoder_.conv_in.forward(g, g.image_input("sample"));
  for (size_t i = tiled ? 1 : 0; i < encoder_.blocks.size(); ++i) {
    x = encoder_.blocks[i].forward(g, x, nullptr);
    if (encoder_.blocks[i].sampler) x = encoder_.blocks[i].sampler->forward(g, x);
    g.tap("encoder.down_blocks." + std::to_string(i), x, 4);
  }
  x = encoder_.mid_block.forward(g, x, nullptr);
  g.tap("encoder.mid_block", x, 4);
  g.output("latents", quant_conv_.forward(g, out_layers(g, encoder_, x, nullptr)), 4);
}

ggml_tensor* VQModel::decode_mid_block(Graph& g, ggml_tensor* latents) const {
  ggml_tensor* x = decoder_.conv_in.forward(g, post_quant_conv_.forward(g, latents));
  return decoder_.mid_block.forward(g, x, latents);
}

void VQModel::build_decode(Graph& g) const {
  ggml_tensor* latents = g.image_input("latents");
  ggml_tensor* x = decode_mid_block(g, latents);
  g.tap("decoder.mid_block", x, 4);
  for (size_t i = 0; i < decoder_.blocks.size(); ++i) {
    x = decoder_.blocks[i].forward(g, x, latents);
    if (decoder_.blocks[i].sampler) x = decoder_.blocks[i].sampler->forward(g, enlarged(x));
    g.tap("decoder.up_blocks." + std::to_string(i), x, 4);
  }
  g.output("sample", out_layers(g, decoder_, x, latents), 4);
}

/// As in encode_first_block_tiled. The last block's input, enlarged, has the most channels of that size.
void VQModel::build_tiled_decode(Graph& g) const {
  ggml_tensor* latents = g.image_input("latents");
  ggml_tensor* x = decode_mid_block(g, latents);
  Strips::Source source{{x}};
  const size_t last = decoder_.blocks.size() - 1;
  for (size_t i = 0; i < last; ++i) {
    const Block& block = decoder_.blocks[i];
    x = block.forward(g, x, latents);
    source = {{x}, {{&*block.sampler, nullptr, nullptr, Resample::nearest_2x}}};
    if (i + 1 < last) x = block.sampler->forward(g, enlarged(x));
  }
  const Strips strips(g, latents);
  const Strips::Image image = decoder_.blocks[last].forward_tiled(g, strips, source, latents);
  g.output("sample", strips.convolved(decoder_.conv_out, &decoder_.conv_norm_out, image), 4);
}

}  // namespace

std::unique_ptr<Model> make_movq(const Config& config, const Weights& w) {
  return std::make_unique<VQModel>(config, w);
}

}  // namespace kandinsky
