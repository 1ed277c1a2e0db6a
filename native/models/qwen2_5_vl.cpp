// Qwen2_5_VLForConditionalGeneration as an encoder: Qwen2.5-VL without its head, which reads the prompts of Kandinsky 5 and
// looks at the pictures that they shall change (transformers models/qwen2_5_vl; https://arxiv.org/abs/2502.13923).
//
// get_image_features: pixel_values [patches, values], image_grid_thw int32 [1, 3] -> image_features [1, units, C]; where the
//          weights have the vision tower
// forward: input_ids int32 [B, L] -> last_hidden_state [B, L, C], after the final norm; with a picture, B is 1:
//          image_features, image_grid_thw, and optionally attention_mask int32 [1, L], 0 for padding
//
// Easy to get wrong:
// - Fewer heads have keys and values than queries: each serves several query heads in a row.
// - Rotation pairs channel i with i + d / 2. Frequencies are divided among three axes (mrope_section). For text they all have
//   the same position, so that it is the ordinary rotation; a picture's tokens stand at one time in rows and columns, and
//   what follows goes on behind its longer side. Padding stands at 0.
// - "hidden_states[-1]" of the reference is normed.
// - The states' largest values are a hundred times the others: activations stay float32 whatever the weights are
//   (computed in bfloat16 the result's cosine to the exact one is 0.9).
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "layers/attention.h"
#include "layers/rotary.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"
#include "models/qwen2_5_vl_vision.h"

namespace kandinsky {

namespace {

// Also for the longest template and text: 55 + 1024 tokens, and their padding.
constexpr int64_t max_length = 4096;

struct TextConfig {
  int64_t channels, hidden_channels, layers, heads, key_heads, head_dim, vocabulary;
  float eps;
  double theta;
  std::vector<int64_t> axis_angles;  // how many of a head's angles are of the time, the row and the column
};

/// Where a token stands: time, row, column.
using Position = std::array<int64_t, 3>;

/// `config`: of the language model, under the names of all its versions.
TextConfig read_config(const Config& config) {
  choice_from(config, "hidden_act", {"silu"}, "silu");
  config.require("use_sliding_window", false);
  TextConfig c;
  c.channels = size_from(config, "hidden_size");
  c.hidden_channels = size_from(config, "intermediate_size");
  c.layers = count_from(config, "num_hidden_layers");
  c.heads = size_from(config, "num_attention_heads");
  c.key_heads = size_from(config, "num_key_value_heads", c.heads);
  c.vocabulary = size_from(config, "vocab_size");
  c.eps = eps_from(config, "rms_norm_eps", 1e-6);
  c.theta = config.real("rope_theta", config.real("rope_parameters.rope_theta", 1e6));
  c.head_dim = c.channels / c.heads;
  if (c.channels % c.heads != 0 || c.head_dim % 2 != 0 || c.heads % c.key_heads != 0) {
    fail(ErrorCode::unsupported_model,
         "{} config: expected num_attention_heads that divide the hidden_size ({}) into even parts, and "
         "num_key_value_heads that divide them, but received {} and {}",
         config.component(), c.channels, c.heads, c.key_heads);
  }
  if (!(c.theta > 0)) {
    fail(ErrorCode::unsupported_model, "{} config: expected a positive rope_theta but received {}", config.component(), c.theta);
  }
  const char* sections = config.has("rope_scaling.mrope_section") ? "rope_scaling.mrope_section" : "rope_parameters.mrope_section";
  c.axis_angles = config.has(sections) ? counts_from(config, sections, 3) : std::vector<int64_t>{c.head_dim / 2, 0, 0};
  if (std::accumulate(c.axis_angles.begin(), c.axis_angles.end(), int64_t{0}) != c.head_dim / 2) {
    fail(ErrorCode::unsupported_model, "{} config: expected a sum of {} for mrope_section but received {}",
         config.component(), c.head_dim / 2, shape_text(c.axis_angles));
  }
  return c;
}

class DecoderLayer {
 public:
  DecoderLayer(const Weights& w, const TextConfig& c)
      : config_(c),
        input_layernorm_(w["input_layernorm"], c.channels, c.eps),
        post_attention_layernorm_(w["post_attention_layernorm"], c.channels, c.eps),
        q_proj_(w["self_attn"]["q_proj"], c.channels, c.channels),
        k_proj_(w["self_attn"]["k_proj"], c.channels, c.key_heads * c.head_dim),
        v_proj_(w["self_attn"]["v_proj"], c.channels, c.key_heads * c.head_dim),
        o_proj_(w["self_attn"]["o_proj"], c.channels, c.channels, false),
        gate_proj_(w["mlp"]["gate_proj"], c.channels, c.hidden_channels, false),
        up_proj_(w["mlp"]["up_proj"], c.channels, c.hidden_channels, false),
        down_proj_(w["mlp"]["down_proj"], c.hidden_channels, c.channels, false) {}

  /// x: {C, L, B}
  ggml_tensor* forward(Graph& g, ggml_tensor* x, const Rotation& rotation, ggml_tensor* mask) const {
    ggml_context* c = g.context();
    Ops& ops = g.ops();
    Operand y = ops.operand(g, input_layernorm_.forward(g, x));
    const Operand q = ops.operand(g, joined(g, rotation.halves(g, heads_of(g, q_proj_, y, config_.heads))));
    const Operand k = ops.operand(g, for_queries(g, rotation.halves(g, heads_of(g, k_proj_, y, config_.key_heads))));
    const Operand v = ops.operand(g, for_queries(g, heads_of(g, v_proj_, y, config_.key_heads)));
    x = o_proj_.forward(g, ops.attention(g, {q, {k, v}, config_.heads, mask}), Activation::none, x);
    y = ops.operand(g, post_attention_layernorm_.forward(g, x));
    ggml_tensor* gated = ggml_mul(c, gate_proj_.forward(g, y, Activation::silu), up_proj_.forward(g, y));
    return down_proj_.forward(g, gated, Activation::none, x);
  }

 private:
  /// {d, heads, L, B}
  ggml_tensor* heads_of(Graph& g, const Linear& linear, Operand x, int64_t heads) const {
    ggml_tensor* y = linear.forward(g, x);
    return ggml_reshape_4d(g.context(), y, config_.head_dim, heads, y->ne[1], y->ne[2]);
  }
  ggml_tensor* joined(Graph& g, ggml_tensor* x) const {
    return ggml_reshape_3d(g.context(), x, x->ne[0] * x->ne[1], x->ne[2], x->ne[3]);
  }
  /// The same with each head repeated for the queries that it serves.
  ggml_tensor* for_queries(Graph& g, ggml_tensor* x) const {
    ggml_context* c = g.context();
    const int64_t d = config_.head_dim, length = x->ne[2], batch = x->ne[3];
    x = ggml_reshape_3d(c, x, d, 1, config_.key_heads * length * batch);
    x = ggml_repeat_4d(c, x, d, config_.heads / config_.key_heads, x->ne[2], 1);
    return ggml_reshape_3d(c, x, config_.channels, length, batch);
  }

  TextConfig config_;
  RmsNorm input_layernorm_, post_attention_layernorm_;
  Linear q_proj_, k_proj_, v_proj_, o_proj_, gate_proj_, up_proj_, down_proj_;
};

class Qwen25VL : public Model {
 public:
  Qwen25VL(const Config& config, const Weights& w)
      : raw_config_(config),
        config_(read_config(config.section("text_config"))),
        // Of 152,064 rows a prompt looks up a hundred; the states that follow are normed.
        embed_tokens_(w["model"]["embed_tokens"]["weight"].at_least(Precision::q8_0).matrix(config_.vocabulary, config_.channels)),
        norm_(w["model"]["norm"], config_.channels, config_.eps) {
    for (int64_t i = 0; i < config_.layers; ++i) layers_.emplace_back(w["model"]["layers"][i], config_);
    if (!config.has("vision_config.depth") || !w["visual"]["patch_embed"]["proj"].has("weight")) return;
    vision_.emplace(w["visual"], read_vision_config(config.section("vision_config")));
    image_token_ = config.integer("image_token_id", 151655);
    if (vision_->config().out_channels != config_.channels || image_token_ < 0 || image_token_ >= config_.vocabulary) {
      fail(ErrorCode::unsupported_model,
           "{} config: expected {} for vision_config.out_hidden_size and an image_token_id below {} but received {} and {}",
           config.component(), config_.channels, config_.vocabulary, vision_->config().out_channels, image_token_);
    }
  }

  std::vector<std::string> methods() const override {
    return vision_ ? std::vector<std::string>{"forward", "get_image_features"} : std::vector<std::string>{"forward"};
  }
  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override;
  bool needs_f32() const override { return true; }

 private:
  std::vector<Position> place_picture(Inputs& in, HostTensors& prepared) const;
  void mask_padding(Inputs& in, HostTensors& prepared, std::vector<Position>& positions) const;

  Config raw_config_;
  TextConfig config_;
  ggml_tensor* embed_tokens_;
  RmsNorm norm_;
  std::vector<DecoderLayer> layers_;
  std::optional<VisionTower> vision_;
  int64_t image_token_ = -1;
};

HostTensors Qwen25VL::prepare(const std::string& method, const HostTensors& inputs) const {
  Inputs in(raw_config_, inputs);
  if (method == "get_image_features") {
    HostTensors prepared = vision_->prepare(in, raw_config_.component());
    in.finish();
    return prepared;
  }
  HostTensors prepared;
  const HostTensor& ids = prepared["input_ids"] = in.token_ids("input_ids", config_.vocabulary, max_length);
  const int64_t length = ids.shape[1];
  prepared["mask"] = causal_mask(length);
  std::vector<Position> positions;
  if (vision_ && in.has("image_features")) {
    positions = place_picture(in, prepared);
    if (in.has("attention_mask")) mask_padding(in, prepared, positions);
  } else {
    for (int64_t i = 0; i < length; ++i) positions.push_back({i, i, i});
  }
  in.finish();
  std::vector<float> angles;
  for (const Position& position : positions) {
    int64_t i = 0;
    for (size_t axis = 0; axis < position.size(); ++axis) {
      for (const int64_t end = i + config_.axis_angles[axis]; i < end; ++i) {
        const float exponent = static_cast<float>(2 * i) / static_cast<float>(config_.head_dim);
        angles.push_back(static_cast<float>(position[axis]) / std::pow(static_cast<float>(config_.theta), exponent));
      }
    }
  }
  add_rotation(prepared, "text", angles, length);
  return prepared;
}

/// Puts the picture's features in place of its tokens: "rows" counts the text's embeddings, then the features.
std::vector<Position> Qwen25VL::place_picture(Inputs& in, HostTensors& prepared) const {
  const HostTensor& ids = prepared["input_ids"];
  const int64_t length = ids.shape[1], merge = vision_->config().merge;
  const HostTensor& features = prepared["image_features"] = in.real("image_features", {1, Inputs::any, config_.channels});
  const std::vector<int32_t>& thw = in.integers("image_grid_thw", {1, 3}).i32;
  const int64_t rows = thw[1] / merge, columns = thw[2] / merge, units = features.shape[1];
  const auto first = std::find(ids.i32.begin(), ids.i32.end(), static_cast<int32_t>(image_token_));
  const int64_t start = first - ids.i32.begin();
  const int64_t tokens = std::count(ids.i32.begin(), ids.i32.end(), static_cast<int32_t>(image_token_));
  const bool is_one_run = start + tokens <= length && std::all_of(first, first + tokens, [&](int32_t id) { return id == image_token_; });
  if (ids.shape[0] != 1 || thw[0] != 1 || rows < 1 || columns < 1 || rows > units || rows * columns != units ||
      tokens != units || !is_one_run) {
    fail(ErrorCode::shape_mismatch,
         "{}: expected one text with one picture's {} tokens in a row, for a grid of as many units, but received {} texts "
         "with {} tokens and {}, {}, {}",
         raw_config_.component(), units, ids.shape[0], tokens, thw[0], thw[1], thw[2]);
  }
  HostTensor& places = prepared["rows"];
  places.is_int = true;
  places.shape = {length};
  std::vector<Position> positions;
  for (int64_t i = 0; i < length; ++i) {
    const int64_t unit = i - start;
    const bool is_picture = unit >= 0 && unit < units;
    places.i32.push_back(static_cast<int32_t>(is_picture ? length + unit : i));
    const int64_t shift = unit >= units ? std::max(rows, columns) - units : 0;
    positions.push_back(is_picture ? Position{start, start + unit / columns, start + unit % columns}
                                   : Position{i + shift, i + shift, i + shift});
  }
  return positions;
}

void Qwen25VL::mask_padding(Inputs& in, HostTensors& prepared, std::vector<Position>& positions) const {
  const auto length = static_cast<int64_t>(positions.size());
  const std::vector<int32_t>& real = in.mask("attention_mask", {1, length}).i32;
  if (real[0] == 0 || !std::is_sorted(real.rbegin(), real.rend())) {
    fail(ErrorCode::invalid_argument, "{}: expected padding behind the text only in attention_mask", raw_config_.component());
  }
  for (int64_t key = 0; key < length; ++key) {
    if (real[key]) continue;
    positions[key] = {0, 0, 0};
    for (int64_t query = 0; query < length; ++query) prepared["mask"].f32[query * length + key] = -INFINITY;
  }
}

void Qwen25VL::build(const std::string& method, Graph& g) const {
  ggml_context* c = g.context();
  if (method == "get_image_features") {
    g.output("image_features", vision_->forward(g), 3);
    return;
  }
  ggml_tensor* ids = g.input("input_ids");
  const int64_t length = ids->ne[0], batch = ids->ne[1];
  ggml_tensor* x = ggml_get_rows(c, embed_tokens_, ggml_reshape_1d(c, ids, length * batch));
  if (g.has_input("image_features")) {
    ggml_tensor* features = g.input("image_features");
    features = ggml_reshape_2d(c, features, features->ne[0], features->ne[1]);
    x = ggml_get_rows(c, ggml_concat(c, x, features, 1), g.input("rows"));
  }
  x = ggml_reshape_3d(c, x, config_.channels, length, batch);
  const Rotation rotation(g, "text");
  for (size_t i = 0; i < layers_.size(); ++i) {
    x = layers_[i].forward(g, x, rotation, g.input("mask"));
    g.tap("model.layers." + std::to_string(i), x, 3);
  }
  g.output("last_hidden_state", norm_.forward(g, x), 3);
}

}  // namespace

std::unique_ptr<Model> make_qwen2_5_vl(const Config& config, const Weights& w) {
  return std::make_unique<Qwen25VL>(config, w);
}

}  // namespace kandinsky
