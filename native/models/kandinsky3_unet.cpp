// Kandinsky3UNet: the denoiser of Kandinsky 3 (diffusers models/unets/unet_kandinsky3.py).
//
// forward: sample [B, Cin, h, w], timestep [1 or B], encoder_hidden_states [B, L, E],
//          encoder_attention_mask int32 [B, L] (1: text, 0: nothing) -> sample [B, Cout, h, w];
//          or context [B, L, C] in the place of encoder_hidden_states
// project: encoder_hidden_states [B, L, E] -> context [B, L, C], and null_embedding [C] where the checkpoint has one
//
// The authors' own checkpoints (https://github.com/ai-forever/Kandinsky-3) have 9 input channels for inpainting, and an
// embedding that stands for no text; they change the text between its projection and the UNet.
//
// Easy to get wrong:
// - Norms have no weights of their own: scale, applied as (1 + scale), and shift come from the time embedding.
// - A mask adds -10000, not infinity: unconditional rows mask everything, and attend to all of it alike.
// - The text is pooled into the time embedding by an attention whose query is the mean of all tokens, masked ones too.
// - Self-attention stands before a down level's blocks, on its input, and behind an up level's, on its result.
// - Downsampling is in the third convolution of a level's last block, upsampling in the second of its first block.
// - Skips are taken after downsampling, and the innermost level has none.
// - Sizes: each level but the last halves, so h and w must be multiples of 2^(levels - 1).
#include <algorithm>
#include <optional>

#include "core/error.h"
#include "layers/attention.h"
#include "layers/conv_transpose2d.h"
#include "layers/time_embedding.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"

namespace kandinsky {

namespace {

// Literals of the reference's class.
constexpr int64_t expansion_ratio = 4;    // of the feed-forward parts
constexpr int64_t compression_ratio = 2;  // of the residual blocks
constexpr float norm_eps = 1e-5f;
constexpr float masked = -10000.0f;

struct Kandinsky3Config {
  int64_t in_channels, out_channels, time_dim, head_dim, layers, context_dim, text_dim;
  bool has_null_embedding;  // of the authors' own checkpoints
  std::vector<int64_t> channels;  // of each level, the outermost first
  int groups;
  /// The outermost level has no attention.
  bool has_attention(size_t level) const { return level > 0; }
  int64_t first_channels() const { return channels[0] / 2; }
};

Kandinsky3Config read_config(const Config& config) {
  Kandinsky3Config c;
  c.in_channels = size_from(config, "in_channels", 4);
  c.out_channels = size_from(config, "out_channels", c.in_channels);
  c.time_dim = size_from(config, "time_embedding_dim", 1536);
  c.groups = static_cast<int>(size_from(config, "groups", 32));
  c.head_dim = size_from(config, "attention_head_dim", 64);
  c.layers = count_from(config, "layers_per_block", 3);
  c.channels = level_channels_from(config);
  c.context_dim = size_from(config, "cross_attention_dim", 4096);
  c.text_dim = size_from(config, "encoder_hid_dim", 4096);
  c.has_null_embedding = config.boolean("null_embedding", false);
  for (const int64_t channels : c.channels) {
    if (channels % c.head_dim != 0) {
      fail(ErrorCode::unsupported_model,
           "{} config: expected multiples of attention_head_dim ({}) in block_out_channels but received {}",
           config.component(), c.head_dim, channels);
    }
  }
  return c;
}

ggml_tensor* as_tokens(Graph& g, ggml_tensor* image) {
  return ggml_reshape_3d(g.context(), image, image->ne[0], image->ne[1] * image->ne[2], image->ne[3]);
}

/// Group norm whose scale and shift are a linear map of the time embedding.
struct ConditionalNorm {
  ConditionalNorm(const Weights& w, int64_t channels, const Kandinsky3Config& c)
      : context_mlp(w["context_mlp"][1], c.time_dim, 2 * channels), groups(c.groups) {
    if (channels % groups != 0) {
      fail(ErrorCode::unsupported_model, "{}: expected a divisor of the {} channels for groups but received {}",
           w.where(), channels, groups);
    }
  }

  ImageInput of(Graph& g, const Image& x, Operand silu_time, bool silu) const {
    ImageInput input(x);
    input.norm.emplace();
    input.norm->groups = groups;
    input.norm->eps = norm_eps;
    input.scale_shift = context_mlp.forward(g, silu_time);
    input.silu = silu;
    return input;
  }

  Linear context_mlp;
  int groups;
};

enum class Resize { none, up, down };

/// Norm, SiLU, a convolution, and what doubles the size before it or halves it afterwards.
struct SubBlock {
  SubBlock(const Weights& w, int64_t in, int64_t out, int kernel, Resize resize, const Kandinsky3Config& c)
      : norm(w["group_norm"], in, c), projection(w["projection"], in, out, kernel) {
    if (resize == Resize::up) up_sample.emplace(w["up_sample"], in, in, 2);
    if (resize == Resize::down) down_sample.emplace(w["down_sample"], out, out, 2, Conv2d::Options{2, 0, 0, true});
  }

  ggml_tensor* forward(Graph& g, const Image& x, Operand silu_time, ggml_tensor* residual) const {
    ImageInput input = norm.of(g, x, silu_time, true);
    if (up_sample) input = up_sample->forward(g, input);
    ggml_tensor* y = projection.forward(g, input, residual);
    return down_sample ? down_sample->forward(g, y) : y;
  }

  ConditionalNorm norm;
  std::optional<ConvTranspose2d> up_sample;
  Conv2d projection;
  std::optional<Conv2d> down_sample;
};

struct ResidualBlock {
  ResidualBlock(const Weights& w, int64_t in, int64_t out, Resize resize, const Kandinsky3Config& c) {
    const Weights blocks = w["resnet_blocks"];
    const int64_t hidden = std::max(in, out) / compression_ratio;
    sub_blocks.emplace_back(blocks[0], in, hidden, 1, Resize::none, c);
    sub_blocks.emplace_back(blocks[1], hidden, hidden, 3, resize == Resize::up ? resize : Resize::none, c);
    sub_blocks.emplace_back(blocks[2], hidden, hidden, 3, resize == Resize::down ? resize : Resize::none, c);
    sub_blocks.emplace_back(blocks[3], hidden, out, 1, Resize::none, c);
    if (resize == Resize::up) shortcut_up_sample.emplace(w["shortcut_up_sample"], in, in, 2);
    if (in != out) shortcut_projection.emplace(w["shortcut_projection"], in, out, 1);
    if (resize == Resize::down) {
      shortcut_down_sample.emplace(w["shortcut_down_sample"], out, out, 2, Conv2d::Options{2, 0, 0, true});
    }
  }

  ggml_tensor* shortcut(Graph& g, const Image& x) const {
    ImageInput y(x);
    if (shortcut_up_sample) y = shortcut_up_sample->forward(g, y);
    if (shortcut_projection) y = shortcut_projection->forward(g, y);
    return shortcut_down_sample ? shortcut_down_sample->forward(g, y) : g.ops().image(g, y);
  }

  ggml_tensor* forward(Graph& g, const Image& x, Operand silu_time) const {
    Image y = x;
    for (size_t i = 0; i + 1 < sub_blocks.size(); ++i) y = sub_blocks[i].forward(g, y, silu_time, nullptr);
    return sub_blocks.back().forward(g, y, silu_time, shortcut(g, x));
  }

  std::vector<SubBlock> sub_blocks;
  std::optional<ConvTranspose2d> shortcut_up_sample;
  std::optional<Conv2d> shortcut_projection, shortcut_down_sample;
};

/// What the attentions see of the text: constant over a generation.
struct Text {
  Operand tokens;
  ggml_tensor* mask;  // {L, 1, 1, B}
};

/// Attention to the text, or of an image's pixels to each other, and a feed-forward part.
struct AttentionBlock {
  AttentionBlock(const Weights& w, int64_t channels, bool is_cross, const Kandinsky3Config& c)
      : in_norm(w["in_norm"], channels, c),
        attention(w["attention"], Attention::diffusers_names,
                  {channels, channels / c.head_dim, is_cross ? c.context_dim : channels, channels, false}),
        is_cross(is_cross),
        out_norm(w["out_norm"], channels, c),
        expand{w["feed_forward"][0]["weight"].kernel(expansion_ratio * channels, channels, 1, 1), nullptr},
        contract{w["feed_forward"][2]["weight"].kernel(channels, expansion_ratio * channels, 1, 1), nullptr} {}

  Operand normed_tokens(Graph& g, ggml_tensor* x, const ConditionalNorm& norm, Operand silu_time) const {
    return Operand(as_tokens(g, g.ops().image_operand(g, norm.of(g, x, silu_time, false)).tensor));
  }

  ggml_tensor* forward(Graph& g, ggml_tensor* x, Operand silu_time, const Text& text) const {
    Ops& ops = g.ops();
    const Operand y = normed_tokens(g, x, in_norm, silu_time);
    ggml_tensor* tokens = as_tokens(g, x);
    if (is_cross) {
      const KeysValues of_text = attention.keys_values(g, text.tokens);
      tokens = attention.attend(g, y, {g.keep(of_text.k), g.keep(of_text.v)}, text.mask, {}, tokens);
    } else {
      tokens = attention.forward(g, y, nullptr, {}, tokens);
    }
    x = ggml_reshape_4d(g.context(), tokens, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
    const Operand hidden = ops.linear_operand(g, expand, normed_tokens(g, x, out_norm, silu_time), Activation::silu);
    tokens = ops.linear(g, contract, hidden, Activation::none, as_tokens(g, x));
    return ggml_reshape_4d(g.context(), tokens, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
  }

  ConditionalNorm in_norm;
  Attention attention;
  bool is_cross;
  ConditionalNorm out_norm;
  Product expand, contract;
};

/// One level on the way down or up.
struct Level {
  std::optional<AttentionBlock> self_attention;
  std::vector<ResidualBlock> resnets_in, resnets_out;
  std::vector<AttentionBlock> cross_attentions;

  ggml_tensor* blocks(Graph& g, Image x, Operand silu_time, const Text& text) const {
    for (size_t j = 0; j < resnets_in.size(); ++j) {
      ggml_tensor* y = resnets_in[j].forward(g, x, silu_time);
      if (!cross_attentions.empty()) y = cross_attentions[j].forward(g, y, silu_time, text);
      x = resnets_out[j].forward(g, y, silu_time);
    }
    return x.x;
  }
};

Level load_down(const Weights& w, int64_t in, int64_t out, bool has_attention, bool shrinks, const Kandinsky3Config& c) {
  Level level;
  if (has_attention) level.self_attention.emplace(w["attentions"][0], in, false, c);
  for (int64_t j = 0; j < c.layers; ++j) {
    const bool is_last = j + 1 == c.layers;
    level.resnets_in.emplace_back(w["resnets_in"][j], j == 0 ? in : out, out, Resize::none, c);
    if (has_attention) level.cross_attentions.emplace_back(w["attentions"][j + 1], out, true, c);
    level.resnets_out.emplace_back(w["resnets_out"][j], out, out, shrinks && is_last ? Resize::down : Resize::none, c);
  }
  return level;
}

/// `skip`: channels beside the input's.
Level load_up(const Weights& w, int64_t in, int64_t skip, int64_t out, bool has_attention, bool grows,
              const Kandinsky3Config& c) {
  Level level;
  const int64_t count = std::max<int64_t>(2, c.layers);  // as the reference's list of channels comes out for one layer
  for (int64_t j = 0; j < count; ++j) {
    const int64_t from = j == 0 ? in + skip : in, to = j + 1 == count ? out : in;
    level.resnets_in.emplace_back(w["resnets_in"][j], from, from, grows && j == 0 ? Resize::up : Resize::none, c);
    if (has_attention) level.cross_attentions.emplace_back(w["attentions"][j + 1], from, true, c);
    level.resnets_out.emplace_back(w["resnets_out"][j], from, to, Resize::none, c);
  }
  if (has_attention) level.self_attention.emplace(w["attentions"][0], out, false, c);
  return level;
}

/// Attention of the mean of all tokens to the tokens.
struct AttentionPooling {
  AttentionPooling(const Weights& w, const Kandinsky3Config& c) {
    attention.to_q = Linear(w["to_q"], c.context_dim, c.time_dim, false);
    attention.to_k = Linear(w["to_k"], c.context_dim, c.time_dim, false);
    attention.to_v = Linear(w["to_v"], c.context_dim, c.time_dim, false);
    attention.to_out = Linear(w["to_out"][0], c.time_dim, c.time_dim, false);
    attention.heads = c.time_dim / c.head_dim;
    if (c.time_dim % c.head_dim != 0) {
      fail(ErrorCode::unsupported_model,
           "{}: expected a multiple of attention_head_dim ({}) for time_embedding_dim but received {}", w.where(),
           c.head_dim, c.time_dim);
    }
  }

  /// tokens: {context_dim, L, B}; returns {time_dim, B}.
  ggml_tensor* forward(Graph& g, ggml_tensor* tokens, const Text& text) const {
    ggml_context* c = g.context();
    ggml_tensor* mean = ggml_mean(c, ggml_cont(c, ggml_transpose(c, tokens)));
    mean = ggml_reshape_3d(c, mean, tokens->ne[0], 1, tokens->ne[2]);
    const KeysValues to = attention.keys_values(g, text.tokens);
    ggml_tensor* y = attention.attend(g, g.ops().operand(g, mean), to, text.mask, {}, nullptr);
    return ggml_reshape_2d(c, y, y->ne[0], y->ne[2]);
  }

  Attention attention;
};

class Kandinsky3UNet : public Model {
 public:
  Kandinsky3UNet(const Config& config, const Weights& w);
  std::vector<std::string> methods() const override { return {"forward", "project"}; }
  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override;
  bool runs_in_loop() const override { return true; }

 private:
  ggml_tensor* project(Graph& g) const;
  Operand time_embedding(Graph& g, ggml_tensor* tokens, const Text& text) const;

  Config raw_config_;
  Kandinsky3Config config_;
  TimestepEmbedding time_embedding_;
  AttentionPooling add_time_condition_;
  Linear projection_linear_;
  LayerNorm projection_norm_;
  ggml_tensor* null_embedding_ = nullptr;
  Conv2d conv_in_, conv_out_;
  Norm2d conv_norm_out_;
  std::vector<Level> down_, up_;
};

Kandinsky3UNet::Kandinsky3UNet(const Config& config, const Weights& w)
    : raw_config_(config),
      config_(read_config(config)),
      time_embedding_(w["time_embedding"].at_least(Precision::half), config_.first_channels(), config_.time_dim,
                      config_.time_dim, Activation::silu),
      add_time_condition_(w["add_time_condition"]["attention"].at_least(Precision::half), config_),
      projection_linear_(w["encoder_hid_proj"]["projection_linear"], config_.text_dim, config_.context_dim, false),
      projection_norm_(w["encoder_hid_proj"]["projection_norm"], config_.context_dim, norm_eps),
      conv_in_(w["conv_in"].at_least(Precision::exact), config_.in_channels, config_.first_channels(), 3),
      conv_out_(w["conv_out"].at_least(Precision::exact), config_.first_channels(), config_.out_channels, 3),
      conv_norm_out_(w["conv_norm_out"], config_.first_channels(), {config_.groups, norm_eps, 0}) {
  if (config_.has_null_embedding) null_embedding_ = w["null_embedding"].get({config_.context_dim});
  const std::vector<int64_t>& channels = config_.channels;
  const size_t levels = channels.size();
  for (size_t i = 0; i < levels; ++i) {
    const int64_t in = i == 0 ? config_.first_channels() : channels[i - 1];
    down_.push_back(load_down(w["down_blocks"][i], in, channels[i], config_.has_attention(i), i + 1 < levels, config_));
  }
  for (size_t i = 0; i < levels; ++i) {
    const size_t level = levels - 1 - i;
    const int64_t in = channels[level], out = level == 0 ? config_.first_channels() : channels[level - 1];
    up_.push_back(load_up(w["up_blocks"][i], in, i > 0 ? in : 0, out, config_.has_attention(level), i > 0, config_));
  }
}

HostTensors Kandinsky3UNet::prepare(const std::string& method, const HostTensors& inputs) const {
  Inputs in(raw_config_, inputs);
  HostTensors prepared;
  if (method == "project") {
    prepared["encoder_hidden_states"] = in.real("encoder_hidden_states", {Inputs::any, Inputs::any, config_.text_dim});
    in.finish();
    return prepared;
  }
  const HostTensor& sample = prepared["sample"] =
      in.real("sample", {Inputs::any, config_.in_channels, Inputs::any, Inputs::any});
  const int64_t batch = sample.shape[0], height = sample.shape[2], width = sample.shape[3];
  const int64_t multiple = int64_t{1} << (config_.channels.size() - 1);
  if (height % multiple != 0 || width % multiple != 0) {
    fail(ErrorCode::shape_mismatch, "{}: expected multiples of {} for height and width of sample but received {} x {}",
         raw_config_.component(), multiple, height, width);
  }
  prepared["sinusoids"] = timestep_sinusoids(in.timestep(batch), batch, config_.first_channels(), {false, 1});
  const bool is_projected = in.has("context");
  const std::string name = is_projected ? "context" : "encoder_hidden_states";
  const HostTensor& text = prepared[name] =
      in.real(name, {batch, Inputs::any, is_projected ? config_.context_dim : config_.text_dim});
  HostTensor& mask = prepared["mask"];
  mask.shape = {batch, 1, 1, text.shape[1]};
  for (const int32_t value : in.mask("encoder_attention_mask", {batch, text.shape[1]}).i32)
    mask.f32.push_back(value == 1 ? 0.0f : masked);
  in.finish();
  return prepared;
}

/// SiLU of the time embedding with the pooled text, {time_dim, B}.
Operand Kandinsky3UNet::time_embedding(Graph& g, ggml_tensor* tokens, const Text& text) const {
  ggml_tensor* time = time_embedding_.forward(g, g.input("sinusoids"));
  time = ggml_add(g.context(), time, g.keep(add_time_condition_.forward(g, tokens, text)));
  g.tap("add_time_condition", time, 2);
  return g.ops().operand(g, time, true);
}

ggml_tensor* Kandinsky3UNet::project(Graph& g) const {
  return projection_norm_.forward(g, projection_linear_.forward(g, g.input("encoder_hidden_states")));
}

void Kandinsky3UNet::build(const std::string& method, Graph& g) const {
  if (method == "project") {
    g.output("context", project(g), 3);
    if (null_embedding_) g.output("null_embedding", ggml_cont(g.context(), null_embedding_), 1);
    return;
  }
  ggml_tensor* tokens = g.has_input("context") ? g.input("context") : project(g);
  const Text text{g.ops().operand(g, tokens), g.input("mask")};
  const Operand silu_time = time_embedding(g, tokens, text);

  ggml_tensor* x = conv_in_.forward(g, g.image_input("sample"));
  g.tap("conv_in", x, 4);
  std::vector<ggml_tensor*> skips;
  for (size_t i = 0; i < down_.size(); ++i) {
    if (down_[i].self_attention) x = down_[i].self_attention->forward(g, x, silu_time, text);
    x = down_[i].blocks(g, x, silu_time, text);
    g.tap("down_blocks." + std::to_string(i), x, 4);
    if (i + 1 < down_.size()) skips.push_back(x);
  }
  for (size_t i = 0; i < up_.size(); ++i) {
    Image input(x);
    if (i > 0) {
      input = g.ops().side_by_side(g, x, skips.back());
      skips.pop_back();
    }
    x = up_[i].blocks(g, input, silu_time, text);
    if (up_[i].self_attention) x = up_[i].self_attention->forward(g, x, silu_time, text);
    g.tap("up_blocks." + std::to_string(i), x, 4);
  }
  ImageInput last(x);
  last.norm = conv_norm_out_.with(g, nullptr);
  last.silu = true;
  g.output("sample", conv_out_.forward(g, last), 4);
}

}  // namespace

std::unique_ptr<Model> make_kandinsky3_unet(const Config& config, const Weights& w) {
  return std::make_unique<Kandinsky3UNet>(config, w);
}

}  // namespace kandinsky
