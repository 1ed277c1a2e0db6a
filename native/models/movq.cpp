// VQModel as Kandinsky uses it: MoVQ (https://arxiv.org/abs/2209.09002; diffusers autoencoders/vq_model.py and vae.py).
//
// encode: sample [B, 3, H, W] in -1..1 -> latents [B, 4, h, w] with h = H / 2^(levels - 1), rounded down at each level
// decode: latents [B, 4, h, w] -> sample [B, 3, H, W], about -1..1 but not clamped
//
// Easy to get wrong:
// - The codebook is never used (force_not_quantize), and scaling_factor is never applied.
// - The decoder's norms are modulated by the latents as given, not by post_quant_conv's result.
#include "core/error.h"
#include "layers/autoencoder.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"

namespace kandinsky {

namespace {

struct MovqConfig : AutoencoderConfig {
  int64_t vq_embed_dim;
};

std::vector<bool> attentions_from(const Config& config, const std::string& key, const std::string& plain,
                                  const std::string& with_attention, size_t levels) {
  std::vector<bool> attentions;
  for (const std::string& type : choices_from(config, key, {plain, with_attention}, levels))
    attentions.push_back(type == with_attention);
  return attentions;
}

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
  c.down_attentions =
      attentions_from(config, "down_block_types", "DownEncoderBlock2D", "AttnDownEncoderBlock2D", levels);
  c.up_attentions = attentions_from(config, "up_block_types", "UpDecoderBlock2D", "AttnUpDecoderBlock2D", levels);
  c.groups = static_cast<int>(size_from(config, "norm_num_groups", 32));
  c.is_spatial = choice_from(config, "norm_type", {"group", "spatial"}, "group") == "spatial";
  if (c.is_spatial && c.vq_embed_dim != c.latent_channels) {
    fail(ErrorCode::unsupported_model, "{} config: expected latent_channels ({}) for vq_embed_dim but received {}",
         config.component(), c.latent_channels, c.vq_embed_dim);
  }
  c.has_mid_attention = config.boolean("mid_block_add_attention", true);
  return c;
}

class VQModel : public Model {
 public:
  VQModel(const Config& config, const Weights& w)
      : raw_config_(config),
        config_(read_config(config)),
        encoder_(w["encoder"], config_, config_.latent_channels),
        quant_conv_(exact(w["quant_conv"]), config_.latent_channels, config_.vq_embed_dim, 1),
        post_quant_conv_(exact(w["post_quant_conv"]), config_.vq_embed_dim, config_.latent_channels, 1),
        decoder_(w["decoder"], config_) {}

  std::vector<std::string> methods() const override { return {"encode", "decode"}; }
  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override { build(method, g, false); }
  bool has_tiles() const override { return true; }
  void build_tiled(const std::string& method, Graph& g) const override { build(method, g, true); }

 private:
  /// 4 x 4 channels around the latents.
  static Weights exact(const Weights& w) { return w.at_least(Precision::exact); }
  void build(const std::string& method, Graph& g, bool tiled) const;

  Config raw_config_;
  MovqConfig config_;
  Encoder encoder_;
  Conv2d quant_conv_, post_quant_conv_;
  Decoder decoder_;
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
      fail(ErrorCode::shape_mismatch, "{}: expected at least {} for height and width of sample but received {} x {}",
           raw_config_.component(), least, sample.shape[2], sample.shape[3]);
    }
  }
  in.finish();
  return prepared;
}

void VQModel::build(const std::string& method, Graph& g, bool tiled) const {
  if (method == "encode") {
    g.output("latents", quant_conv_.forward(g, encoder_.forward(g, g.image_input("sample"), tiled, "encoder")), 4);
    return;
  }
  ggml_tensor* latents = g.image_input("latents");
  ggml_tensor* x = post_quant_conv_.forward(g, latents);
  g.output("sample", tiled ? decoder_.forward_tiled(g, x, latents) : decoder_.forward(g, x, latents, "decoder"), 4);
}

}  // namespace

std::unique_ptr<Model> make_movq(const Config& config, const Weights& w) {
  // The last network of all: nothing repairs its errors, and smaller weights would save 35 MB.
  return std::make_unique<VQModel>(config, w.at_least(Precision::q8_0));
}

}  // namespace kandinsky
