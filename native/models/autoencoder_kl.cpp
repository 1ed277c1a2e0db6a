// AutoencoderKL: the autoencoder of Kandinsky 5, which is FLUX.1's (https://arxiv.org/abs/1312.6114; diffusers
// autoencoders/autoencoder_kl.py).
//
// encode: sample [B, 3, H, W] in -1..1 -> moments [B, 2 C, h, w]: means, then logarithms of variances
// decode: latents [B, C, h, w] -> sample [B, 3, H, W], about -1..1 but not clamped
//
// Easy to get wrong: scaling_factor and shift_factor are the caller's matter, and Kandinsky 5 applies only the first.
#include <optional>

#include "core/error.h"
#include "layers/autoencoder.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"

namespace kandinsky {

namespace {

AutoencoderConfig read_config(const Config& config) {
  config.require("act_fn", std::string("silu"));
  AutoencoderConfig c;
  c.in_channels = size_from(config, "in_channels", 3);
  c.out_channels = size_from(config, "out_channels", 3);
  c.latent_channels = size_from(config, "latent_channels", 4);
  c.layers = count_from(config, "layers_per_block", 1);
  c.channels = level_channels_from(config);
  const size_t levels = c.channels.size();
  choices_from(config, "down_block_types", {"DownEncoderBlock2D"}, levels);
  choices_from(config, "up_block_types", {"UpDecoderBlock2D"}, levels);
  c.down_attentions.assign(levels, false);
  c.up_attentions.assign(levels, false);
  c.groups = static_cast<int>(size_from(config, "norm_num_groups", 32));
  c.has_mid_attention = config.boolean("mid_block_add_attention", true);
  return c;
}

std::optional<Conv2d> optional_conv(const Config& config, const std::string& key, const Weights& w, int64_t channels) {
  if (!config.boolean(key, true)) return {};
  return Conv2d(w.at_least(Precision::exact), channels, channels, 1);
}

class AutoencoderKL : public Model {
 public:
  AutoencoderKL(const Config& config, const Weights& w)
      : raw_config_(config),
        config_(read_config(config)),
        encoder_(w["encoder"], config_, 2 * config_.latent_channels),
        decoder_(w["decoder"], config_),
        quant_conv_(optional_conv(config, "use_quant_conv", w["quant_conv"], 2 * config_.latent_channels)),
        post_quant_conv_(optional_conv(config, "use_post_quant_conv", w["post_quant_conv"], config_.latent_channels)) {}

  std::vector<std::string> methods() const override { return {"encode", "decode"}; }
  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override { build(method, g, false); }
  bool has_tiles() const override { return true; }
  void build_tiled(const std::string& method, Graph& g) const override { build(method, g, true); }

 private:
  void build(const std::string& method, Graph& g, bool tiled) const;

  Config raw_config_;
  AutoencoderConfig config_;
  Encoder encoder_;
  Decoder decoder_;
  std::optional<Conv2d> quant_conv_, post_quant_conv_;
};

HostTensors AutoencoderKL::prepare(const std::string& method, const HostTensors& inputs) const {
  Inputs in(raw_config_, inputs);
  HostTensors prepared;
  if (method == "decode") {
    prepared["latents"] = in.real("latents", {Inputs::any, config_.latent_channels, Inputs::any, Inputs::any});
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

void AutoencoderKL::build(const std::string& method, Graph& g, bool tiled) const {
  if (method == "encode") {
    ggml_tensor* moments = encoder_.forward(g, g.image_input("sample"), tiled, "encoder");
    g.output("moments", quant_conv_ ? quant_conv_->forward(g, moments) : moments, 4);
    return;
  }
  ggml_tensor* x = g.image_input("latents");
  if (post_quant_conv_) x = post_quant_conv_->forward(g, x);
  g.output("sample", tiled ? decoder_.forward_tiled(g, x, nullptr) : decoder_.forward(g, x, nullptr, "decoder"), 4);
}

}  // namespace

std::unique_ptr<Model> make_autoencoder_kl(const Config& config, const Weights& w) {
  // The last network of all: nothing repairs its errors, and smaller weights would save 35 MB.
  return std::make_unique<AutoencoderKL>(config, w.at_least(Precision::q8_0));
}

}  // namespace kandinsky
