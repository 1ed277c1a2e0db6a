// UNet2DConditionModel: the denoiser of Kandinsky 2.1 and 2.2 (diffusers models/unets/unet_2d_condition.py).
//
// forward: sample [B, Cin, h, w], timestep [1 or B], image_embeds [B, D]
//          (2.1 also text_embeds [B, D] and encoder_hidden_states [B, T, D]; ControlNet also hint [B, 3, 8h, 8w])
//          -> sample [B, Cout, h, w]; the second half of Cout is the scheduler's variance.
//
// Easy to get wrong:
// - Conditioning tokens are prepended to the keys and values of each self-attention; they are not normalized there.
// - The first half of time_emb_proj is the scale, applied as (1 + scale).
// - Down- and upsamplers are resnet blocks that pool or repeat between norm1 and conv1, and in their shortcut.
// - attention_head_dim really is the width of a head in these blocks; the eps of an attention's group_norm is 1e-5
//   whatever norm_eps says.
// - Sizes: each level halves, so h and w must be multiples of 2^(levels - 1).
#include <algorithm>

#include "core/error.h"
#include "layers/attention.h"
#include "layers/resnet.h"
#include "layers/time_embedding.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"

namespace kandinsky {

namespace {

// Sizes that diffusers has as literals, not in a config.
constexpr int64_t hint_channels = 4;  // ImageHintTimeEmbedding
constexpr int64_t hint_factor = 8;
struct HintConv {
  int64_t in, out;
  int stride;
};
constexpr HintConv hint_convs[] = {{3, 16, 1},  {16, 16, 1}, {16, 32, 2},  {32, 32, 1},
                                   {32, 96, 2}, {96, 96, 1}, {96, 256, 2}, {256, hint_channels, 1}};
constexpr int64_t image_tokens = 32;       // ImageProjection
constexpr int64_t text_image_tokens = 10;  // TextImageProjection

struct UNetConfig {
  int64_t in_channels, out_channels, encoder_hid_dim, time_embed_dim;
  std::vector<int64_t> channels, layers, head_dims, context_dims;
  std::vector<std::string> down_types, up_types;
  int groups;
  float eps;
  int conv_in_kernel, conv_out_kernel;
  bool is_text_image, has_hint;
  TimestepOptions timestep;
};

/// Everything that this file takes for granted; absent keys stand for the same value in diffusers.
void check_fixed(const Config& config) {
  config.require("act_fn", std::string("silu"));
  config.require("center_input_sample", false);
  config.require("only_cross_attention", false);
  config.require("mid_block_only_cross_attention", false);
  config.require("mid_block_scale_factor", int64_t{1});
  config.require("dual_cross_attention", false);
  config.require("class_embeddings_concat", false);
  config.require("resnet_skip_time_act", false);
  config.require("resnet_out_scale_factor", 1.0);
  config.require("time_embedding_type", std::string("positional"));
  config.require("attention_type", std::string("default"));
  for (const char* key : {"num_attention_heads", "class_embed_type", "num_class_embeds", "time_embedding_act_fn",
                          "timestep_post_act", "time_cond_proj_dim", "cross_attention_norm"}) {
    config.require_absent(key);
  }
}

UNetConfig read_config(const Config& config) {
  check_fixed(config);
  UNetConfig c;
  c.in_channels = size_from(config, "in_channels", 4);
  c.out_channels = size_from(config, "out_channels", 4);
  c.channels = level_channels_from(config);
  const size_t levels = c.channels.size();
  c.layers = counts_from(config, "layers_per_block", levels);
  c.head_dims = sizes_from(config, "attention_head_dim", levels);
  c.context_dims = sizes_from(config, "cross_attention_dim", levels);
  c.down_types =
      choices_from(config, "down_block_types", {"ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"}, levels);
  c.up_types = choices_from(config, "up_block_types", {"ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"}, levels);
  choice_from(config, "mid_block_type", {"UNetMidBlock2DSimpleCrossAttn"}, "UNetMidBlock2DCrossAttn");
  choice_from(config, "resnet_time_scale_shift", {"scale_shift"}, "default");
  c.groups = static_cast<int>(size_from(config, "norm_num_groups", 32));
  c.eps = eps_from(config, "norm_eps", 1e-5);
  c.conv_in_kernel = static_cast<int>(size_from(config, "conv_in_kernel", 3));
  c.conv_out_kernel = static_cast<int>(size_from(config, "conv_out_kernel", 3));
  c.encoder_hid_dim = size_from(config, "encoder_hid_dim");
  c.time_embed_dim = size_from(config, "time_embedding_dim", c.channels[0] * 4);
  c.timestep.flip_sin_to_cos = config.boolean("flip_sin_to_cos", true);
  c.timestep.freq_shift = config.real("freq_shift", 0);

  const std::string addition =
      choice_from(config, "addition_embed_type", {"image", "image_hint", "text_image"}, "none");
  c.is_text_image = addition == "text_image";
  c.has_hint = addition == "image_hint";
  choice_from(config, "encoder_hid_dim_type", {c.is_text_image ? "text_image_proj" : "image_proj"}, "none");
  if (c.has_hint && c.in_channels <= hint_channels) {
    fail(ErrorCode::unsupported_model, "{} config: expected more than {} in_channels with image_hint", config.component(), hint_channels);
  }
  for (const int kernel : {c.conv_in_kernel, c.conv_out_kernel}) {
    if (kernel % 2 == 0 || kernel > 15) {
      fail(ErrorCode::unsupported_model, "{} config: expected an odd kernel size up to 15 but received {}", config.component(), kernel);
    }
  }
  return c;
}

/// One level's blocks: resnets, an attention after each (or none), and a resampling resnet (or none).
struct Block {
  std::vector<ResnetBlock2D> resnets;
  std::vector<ImageAttention> attentions;
  std::vector<ResnetBlock2D> samplers;
};

class UNet2DConditionModel : public Model {
 public:
  UNet2DConditionModel(const Config& config, const Weights& w);
  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override;
  bool runs_in_loop() const override { return true; }

 private:
  /// `level` 0 is the outermost one. There the fastest convolutions would cost more exactness than the float32 residual
  /// stream gains over bfloat16: 1.40 % instead of 0.97 % at full size (bench/error.mjs; torch in bfloat16: 1.27 %).
  ResnetBlock2D resnet(const Weights& w, int64_t in, int64_t out, size_t level,
                       Resample resample = Resample::none) const {
    const Sensitivity sensitivity = level == 0 ? Sensitivity::near_output : Sensitivity::inner;
    return {w, in, out, {{config_.groups, config_.eps, 0}, config_.time_embed_dim, resample, sensitivity}};
  }
  ImageAttention attention(const Weights& w, int64_t channels, int64_t head_dim, int64_t context_dim) const {
    if (channels % head_dim != 0) {
      fail(ErrorCode::unsupported_model, "{} config: expected a divisor of {} channels for attention_head_dim but "
           "received {}", raw_config_.component(), channels, head_dim);
    }
    return {w, channels, {channels / head_dim, context_dim, {config_.groups, 1e-5f, 0}}};
  }
  void load_conditioning(const Weights& w);
  void load_down(const Weights& w);
  void load_mid(const Weights& w);
  void load_up(const Weights& w);

  Operand time_embedding(Graph& g) const;
  Operand conditioning_tokens(Graph& g) const;
  Image input_image(Graph& g) const;

  Config raw_config_;
  UNetConfig config_;
  Conv2d conv_in_, conv_out_;
  Norm2d conv_norm_out_;
  TimestepEmbedding time_embedding_;
  Linear image_proj_, text_proj_;  // add_embedding
  LayerNorm embedding_norm_;       // of the text half in 2.1, of the image in 2.2
  Linear token_image_embeds_, token_text_proj_;  // encoder_hid_proj
  LayerNorm token_norm_;
  std::vector<Conv2d> hint_convs_;
  std::vector<Block> down_, up_;
  Block mid_;
};

// The first and the last convolution meet the latents themselves, where an error is a fault of the picture; a vector,
// not a batch of pixels, passes the embeddings of time and conditioning and reaches every layer.
UNet2DConditionModel::UNet2DConditionModel(const Config& config, const Weights& w)
    : raw_config_(config),
      config_(read_config(config)),
      conv_in_(w["conv_in"].at_least(Precision::exact), config_.in_channels, config_.channels[0], config_.conv_in_kernel),
      conv_out_(w["conv_out"].at_least(Precision::exact), config_.channels[0], config_.out_channels, config_.conv_out_kernel),
      conv_norm_out_(w["conv_norm_out"], config_.channels[0], {config_.groups, config_.eps, 0}),
      time_embedding_(w["time_embedding"].at_least(Precision::half), config_.channels[0], config_.time_embed_dim, config_.time_embed_dim,
                      Activation::silu) {
  load_conditioning(w);
  load_down(w["down_blocks"]);
  load_mid(w["mid_block"]);
  load_up(w["up_blocks"]);
}

void UNet2DConditionModel::load_conditioning(const Weights& w) {
  const int64_t context = config_.context_dims[0], hidden = config_.encoder_hid_dim, time = config_.time_embed_dim;
  const Weights add = w["add_embedding"].at_least(Precision::half), tokens = w["encoder_hid_proj"];
  if (config_.is_text_image) {
    image_proj_ = Linear(add["image_proj"], context, time);
    text_proj_ = Linear(add["text_proj"], context, time);
    embedding_norm_ = LayerNorm(add["text_norm"], time, 1e-5f);
    token_image_embeds_ = Linear(tokens["image_embeds"], context, text_image_tokens * context);
    token_text_proj_ = Linear(tokens["text_proj"], hidden, context);
    return;
  }
  image_proj_ = Linear(add["image_proj"], hidden, time);
  embedding_norm_ = LayerNorm(add["image_norm"], time, 1e-5f);
  token_image_embeds_ = Linear(tokens["image_embeds"], hidden, image_tokens * context);
  token_norm_ = LayerNorm(tokens["norm"], context, 1e-5f);
  if (!config_.has_hint) return;
  int64_t index = 0;  // odd positions of the Sequential are SiLU
  for (const HintConv& conv : hint_convs) {
    hint_convs_.emplace_back(add["input_hint_block"][index], conv.in, conv.out, 3,
                             Conv2d::Options{conv.stride, 1, 1, true});
    index += 2;
  }
}

void UNet2DConditionModel::load_down(const Weights& w) {
  int64_t in = config_.channels[0];
  for (size_t i = 0; i < config_.channels.size(); ++i) {
    const int64_t out = config_.channels[i];
    Block block;
    for (int64_t j = 0; j < config_.layers[i]; ++j) {
      block.resnets.push_back(resnet(w[i]["resnets"][j], j == 0 ? in : out, out, i));
      if (config_.down_types[i] != "SimpleCrossAttnDownBlock2D") continue;
      block.attentions.push_back(attention(w[i]["attentions"][j], out, config_.head_dims[i], config_.context_dims[i]));
    }
    if (i + 1 < config_.channels.size()) {
      block.samplers.push_back(resnet(w[i]["downsamplers"][0], out, out, i, Resample::avg_pool_2x2));
    }
    down_.push_back(std::move(block));
    in = out;
  }
}

void UNet2DConditionModel::load_mid(const Weights& w) {
  const int64_t channels = config_.channels.back();
  mid_.resnets.push_back(resnet(w["resnets"][0], channels, channels, config_.channels.size() - 1));
  mid_.attentions.push_back(
      attention(w["attentions"][0], channels, config_.head_dims.back(), config_.context_dims.back()));
  mid_.resnets.push_back(resnet(w["resnets"][1], channels, channels, config_.channels.size() - 1));
}

void UNet2DConditionModel::load_up(const Weights& w) {
  const std::vector<int64_t> channels(config_.channels.rbegin(), config_.channels.rend());
  const size_t levels = channels.size();
  int64_t previous = channels[0];
  for (size_t i = 0; i < levels; ++i) {
    const int64_t out = channels[i], last_skip = channels[std::min(i + 1, levels - 1)];
    const int64_t layers = config_.layers[levels - 1 - i] + 1;
    Block block;
    for (int64_t j = 0; j < layers; ++j) {
      const int64_t skip = j == layers - 1 ? last_skip : out;
      block.resnets.push_back(resnet(w[i]["resnets"][j], (j == 0 ? previous : out) + skip, out, levels - 1 - i));
      if (config_.up_types[i] != "SimpleCrossAttnUpBlock2D") continue;
      // diffusers reverses the other lists for the way up, but not attention_head_dim.
      block.attentions.push_back(
          attention(w[i]["attentions"][j], out, config_.head_dims[i], config_.context_dims[levels - 1 - i]));
    }
    if (i + 1 < levels) {
      block.samplers.push_back(resnet(w[i]["upsamplers"][0], out, out, levels - 1 - i, Resample::nearest_2x));
    }
    up_.push_back(std::move(block));
    previous = out;
  }
}

HostTensors UNet2DConditionModel::prepare(const std::string&, const HostTensors& inputs) const {
  Inputs in(raw_config_, inputs);
  const int64_t latent_channels = config_.in_channels - (config_.has_hint ? hint_channels : 0);
  HostTensors prepared;
  const HostTensor& sample = prepared["sample"] =
      in.real("sample", {Inputs::any, latent_channels, Inputs::any, Inputs::any});
  const int64_t batch = sample.shape[0], height = sample.shape[2], width = sample.shape[3];
  const int64_t multiple = int64_t{1} << (config_.channels.size() - 1);
  if (height % multiple != 0 || width % multiple != 0) {
    fail(ErrorCode::shape_mismatch,
         "{}: expected multiples of {} for height and width of sample but received {} x {}", raw_config_.component(), multiple, height, width);
  }
  prepared["sinusoids"] =
      timestep_sinusoids(in.timestep(batch), batch, config_.channels[0], config_.timestep);
  const int64_t context = config_.context_dims[0];
  prepared["image_embeds"] =
      in.real("image_embeds", {batch, config_.is_text_image ? context : config_.encoder_hid_dim});
  if (config_.is_text_image) {
    prepared["text_embeds"] = in.real("text_embeds", {batch, context});
    prepared["encoder_hidden_states"] =
        in.real("encoder_hidden_states", {batch, Inputs::any, config_.encoder_hid_dim});
  }
  if (config_.has_hint) {
    prepared["hint"] = in.real("hint", {batch, hint_convs[0].in, hint_factor * height, hint_factor * width});
  }
  in.finish();
  return prepared;
}

/// SiLU of the sum of time and image embedding, {time_embed_dim, B}.
Operand UNet2DConditionModel::time_embedding(Graph& g) const {
  ggml_context* c = g.context();
  ggml_tensor* time = time_embedding_.forward(g, g.input("sinusoids"));
  g.tap("time_embedding", time, 2);
  ggml_tensor* added = image_proj_.forward(g, g.input("image_embeds"));
  if (config_.is_text_image) {
    ggml_tensor* text = text_proj_.forward(g, g.input("text_embeds"));
    added = ggml_add(c, added, embedding_norm_.forward(g, text));
  } else {
    added = embedding_norm_.forward(g, added);
  }
  added = g.keep(added);
  g.tap("add_embedding", added, 2);
  return g.ops().operand(g, ggml_add(c, time, added), true);
}

/// What the attentions see beside the image, {cross_attention_dim, tokens, B}. The same in every step.
Operand UNet2DConditionModel::conditioning_tokens(Graph& g) const {
  ggml_context* c = g.context();
  const int64_t context = config_.context_dims[0];
  ggml_tensor* tokens = token_image_embeds_.forward(g, g.input("image_embeds"));
  tokens = ggml_reshape_3d(c, tokens, context, tokens->ne[0] / context, tokens->ne[1]);
  if (config_.is_text_image) {
    tokens = ggml_concat(c, tokens, token_text_proj_.forward(g, g.input("encoder_hidden_states")), 1);
  } else {
    tokens = token_norm_.forward(g, tokens);
  }
  g.tap("encoder_hid_proj", g.keep(tokens), 3);
  return g.ops().operand(g, tokens);
}

/// The latents, with ControlNet followed by the features of the hint.
Image UNet2DConditionModel::input_image(Graph& g) const {
  ggml_tensor* sample = g.image_input("sample");
  if (!config_.has_hint) return sample;
  ggml_tensor* hint = g.image_input("hint");
  for (size_t i = 0; i < hint_convs_.size(); ++i) {
    ImageInput input(hint);
    input.silu = i > 0;
    hint = hint_convs_[i].forward(g, input);
  }
  return g.ops().side_by_side(g, sample, g.keep(hint));
}

void UNet2DConditionModel::build(const std::string&, Graph& g) const {
  const Operand silu_temb = time_embedding(g);
  const Operand context = conditioning_tokens(g);
  ggml_tensor* x = conv_in_.forward(g, input_image(g));
  g.tap("conv_in", x, 4);

  std::vector<ggml_tensor*> skips{x};
  for (size_t i = 0; i < down_.size(); ++i) {
    for (size_t j = 0; j < down_[i].resnets.size(); ++j) {
      x = down_[i].resnets[j].forward(g, x, silu_temb, nullptr);
      if (!down_[i].attentions.empty()) x = down_[i].attentions[j].forward(g, x, context, nullptr);
      skips.push_back(x);
    }
    for (const ResnetBlock2D& sampler : down_[i].samplers) {
      x = sampler.forward(g, x, silu_temb, nullptr);
      skips.push_back(x);
    }
    g.tap("down_blocks." + std::to_string(i), x, 4);
  }

  x = mid_.resnets[0].forward(g, x, silu_temb, nullptr);
  x = mid_.attentions[0].forward(g, x, context, nullptr);
  x = mid_.resnets[1].forward(g, x, silu_temb, nullptr);
  g.tap("mid_block", x, 4);

  for (size_t i = 0; i < up_.size(); ++i) {
    for (size_t j = 0; j < up_[i].resnets.size(); ++j) {
      x = up_[i].resnets[j].forward(g, g.ops().side_by_side(g, x, skips.back()), silu_temb, nullptr);
      skips.pop_back();
      if (!up_[i].attentions.empty()) x = up_[i].attentions[j].forward(g, x, context, nullptr);
    }
    for (const ResnetBlock2D& sampler : up_[i].samplers) x = sampler.forward(g, x, silu_temb, nullptr);
    g.tap("up_blocks." + std::to_string(i), x, 4);
  }

  ImageInput last(x);
  last.norm = conv_norm_out_.with(g, nullptr);
  last.silu = true;
  g.output("sample", conv_out_.forward(g, last), 4);
}

}  // namespace

std::unique_ptr<Model> make_unet_2d_condition(const Config& config, const Weights& w) {
  return std::make_unique<UNet2DConditionModel>(config, w);
}

}  // namespace kandinsky
