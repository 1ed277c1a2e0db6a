// Kandinsky5Transformer3DModel: the diffusion transformer of Kandinsky 5, for pictures
// (https://arxiv.org/abs/2511.14993; diffusers transformers/transformer_kandinsky.py).
//
// forward: hidden_states [1, 1, h, w, C], timestep [1], encoder_hidden_states [1, L, E], pooled_projections [1, P], optional
//          scale_factor [3] -> velocity [1, h * w, out_visual_dim], pixel by pixel
//
// One sample a call: texts of different lengths cannot share one, as nothing masks padding.
//
// Easy to get wrong:
// - Pictures have their channels last. Values of a patch are ordered (row, column, channel) going in, and
//   (channel, row, column) coming out.
// - The only global condition is time + pooled text. SiLU comes before each modulation, though the time embedding's last
//   layer is linear.
// - Rotation turns adjacent pairs, and only in self-attention. Rotated queries and keys are rounded to bfloat16, whatever
//   the model's type is. Cross-attention has norms but neither rotation nor rounding.
// - Queries and keys are normed per head, with float32's machine epsilon.
// - All visual blocks read the same text states, those of the last text block, without a norm.
// - The text blocks depend on the timestep: nothing of them stays the same over the steps.
#include <cfloat>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "layers/attention.h"
#include "layers/rotary.h"
#include "layers/time_embedding.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"

namespace kandinsky {

namespace {

constexpr int64_t patch = 2;
constexpr float norm_eps = 1e-5f;
// Of the reference's tables of angles.
constexpr int64_t max_text_tokens = 1024;
constexpr int64_t max_patches = 128;

struct TransformerConfig {
  int64_t channels, hidden_channels, time_dim, text_dim, pooled_dim, in_channels, out_channels, text_blocks, visual_blocks;
  std::vector<int64_t> axes;  // of a head's channels: those turned by frame, row and column
  int64_t head_dim, heads;
};

TransformerConfig read_config(const Config& config) {
  config.require("attention_type", std::string("regular"));
  config.require("patch_size", std::vector<int64_t>{1, patch, patch});
  TransformerConfig c;
  c.channels = size_from(config, "model_dim", 2048);
  c.hidden_channels = size_from(config, "ff_dim", 5120);
  c.time_dim = size_from(config, "time_dim", 512);
  c.text_dim = size_from(config, "in_text_dim", 3584);
  c.pooled_dim = size_from(config, "in_text_dim2", 768);
  const int64_t visual = size_from(config, "in_visual_dim", 4);
  // What a picture is conditioned on: another picture's latents and a mask.
  c.in_channels = config.boolean("visual_cond", false) ? 2 * visual + 1 : visual;
  c.out_channels = size_from(config, "out_visual_dim", 4);
  c.text_blocks = count_from(config, "num_text_blocks", 2);
  c.visual_blocks = count_from(config, "num_visual_blocks", 32);
  c.axes = config.has("axes_dims") ? sizes_from(config, "axes_dims", 3) : std::vector<int64_t>{16, 24, 24};
  c.head_dim = std::accumulate(c.axes.begin(), c.axes.end(), int64_t{0});
  c.heads = c.channels / c.head_dim;
  for (const int64_t width : c.axes) {
    if (width % 2 != 0 || c.channels % c.head_dim != 0) {
      fail(ErrorCode::unsupported_model,
           "{} config: expected even axes_dims whose sum divides the model_dim ({}) but received {}", config.component(),
           c.channels, shape_text(c.axes));
    }
  }
  return c;
}

/// The frequencies of `width` channels, which are turned by half as many angles.
std::vector<float> frequencies(int64_t width) {
  const int64_t count = width / 2;
  std::vector<float> result;
  for (int64_t i = 0; i < count; ++i) {
    result.push_back(std::exp(static_cast<float>(-std::log(10000.0)) * static_cast<float>(i) / static_cast<float>(count)));
  }
  return result;
}

/// What follows from the condition: `parts` rows of modulation for one block.
class Modulation {
 public:
  Modulation(const Weights& w, const TransformerConfig& c, int64_t parts)
      : channels_(c.channels), linear_(w["out_layer"].at_least(Precision::half), c.time_dim, parts * c.channels) {}

  /// What is done before and after one part of a block.
  struct Part {
    ggml_tensor *shift, *scale, *gate;
  };
  ggml_tensor* rows(Graph& g, Operand silu_condition) const { return linear_.forward(g, silu_condition); }
  ggml_tensor* row(Graph& g, ggml_tensor* rows, int64_t i) const {
    return ggml_view_1d(g.context(), rows, channels_, i * channels_ * sizeof(float));
  }
  Part part(Graph& g, ggml_tensor* rows, int64_t i) const {
    return {row(g, rows, 3 * i), row(g, rows, 3 * i + 1), row(g, rows, 3 * i + 2)};
  }

 private:
  int64_t channels_;
  Linear linear_;
};

/// LayerNorm(x) * (1 + scale) + shift.
LayerNormalization modulated(Graph& g, const ggml_tensor* shift, ggml_tensor* scale) {
  return {ggml_scale_bias(g.context(), scale, 1, 1), const_cast<ggml_tensor*>(shift), norm_eps};
}

Operand modulated_operand(Graph& g, ggml_tensor* x, const Modulation::Part& part) {
  return g.ops().layer_norm_operand(g, modulated(g, part.shift, part.scale), x);
}

ggml_tensor* gated_sum(Graph& g, ggml_tensor* x, ggml_tensor* gate, ggml_tensor* y) {
  return ggml_add(g.context(), x, ggml_mul(g.context(), y, gate));
}

struct HeadNormAttention {
  HeadNormAttention(const Weights& w, const TransformerConfig& c)
      : to_query(w["to_query"], c.channels, c.channels),
        to_key(w["to_key"], c.channels, c.channels),
        to_value(w["to_value"], c.channels, c.channels),
        out_layer(w["out_layer"], c.channels, c.channels),
        query_norm(w["query_norm"], c.head_dim, FLT_EPSILON),
        key_norm(w["key_norm"], c.head_dim, FLT_EPSILON),
        heads(c.heads),
        head_dim(c.head_dim) {}

  /// x, context: {C, tokens}. `rotation`: null in cross-attention.
  ggml_tensor* forward(Graph& g, Operand x, Operand context, const Rotation* rotation) const {
    const Operand q = heads_of(g, to_query, query_norm, x, rotation), k = heads_of(g, to_key, key_norm, context, rotation);
    const KeysValues keys_values{k, g.ops().projection(g, to_value.product, context, head_dim)};
    return out_layer.forward(g, g.ops().attention(g, {q, keys_values, heads}));
  }

  Operand heads_of(Graph& g, const Linear& linear, const RmsNorm& norm, Operand x, const Rotation* rotation) const {
    ggml_context* c = g.context();
    ggml_tensor* y = linear.forward(g, x);
    const int64_t channels = y->ne[0], tokens = y->ne[1];
    y = norm.forward(g, ggml_reshape_3d(c, y, head_dim, heads, tokens));
    if (rotation) y = ggml_cast(c, rotation->adjacent(g, y), GGML_TYPE_BF16);
    return g.ops().operand(g, ggml_reshape_2d(c, y, channels, tokens));
  }

  Linear to_query, to_key, to_value, out_layer;
  RmsNorm query_norm, key_norm;
  int64_t heads, head_dim;
};

struct FeedForward {
  FeedForward(const Weights& w, const TransformerConfig& c)
      : in_layer(w["in_layer"], c.channels, c.hidden_channels, false),
        out_layer(w["out_layer"], c.hidden_channels, c.channels, false) {}

  ggml_tensor* forward(Graph& g, Operand x) const {
    return out_layer.forward(g, g.ops().linear_operand(g, in_layer.product, x, Activation::gelu));
  }

  Linear in_layer, out_layer;
};

struct TextBlock {
  TextBlock(const Weights& w, const TransformerConfig& c)
      : modulation(w["text_modulation"], c, 6), self_attention(w["self_attention"], c), feed_forward(w["feed_forward"], c) {}

  ggml_tensor* forward(Graph& g, ggml_tensor* x, Operand condition, const Rotation& rotation) const {
    ggml_tensor* rows = modulation.rows(g, condition);
    Modulation::Part part = modulation.part(g, rows, 0);
    Operand y = modulated_operand(g, x, part);
    x = gated_sum(g, x, part.gate, self_attention.forward(g, y, y, &rotation));
    part = modulation.part(g, rows, 1);
    return gated_sum(g, x, part.gate, feed_forward.forward(g, modulated_operand(g, x, part)));
  }

  Modulation modulation;
  HeadNormAttention self_attention;
  FeedForward feed_forward;
};

struct VisualBlock {
  VisualBlock(const Weights& w, const TransformerConfig& c)
      : modulation(w["visual_modulation"], c, 9),
        self_attention(w["self_attention"], c),
        cross_attention(w["cross_attention"], c),
        feed_forward(w["feed_forward"], c) {}

  ggml_tensor* forward(Graph& g, ggml_tensor* x, Operand text, Operand condition, const Rotation& rotation) const {
    ggml_tensor* rows = modulation.rows(g, condition);
    Modulation::Part part = modulation.part(g, rows, 0);
    const Operand y = modulated_operand(g, x, part);
    x = gated_sum(g, x, part.gate, self_attention.forward(g, y, y, &rotation));
    part = modulation.part(g, rows, 1);
    x = gated_sum(g, x, part.gate, cross_attention.forward(g, modulated_operand(g, x, part), text, nullptr));
    part = modulation.part(g, rows, 2);
    return gated_sum(g, x, part.gate, feed_forward.forward(g, modulated_operand(g, x, part)));
  }

  Modulation modulation;
  HeadNormAttention self_attention, cross_attention;
  FeedForward feed_forward;
};

/// LayerNorm(Linear(x)).
struct TextEmbedding {
  TextEmbedding(const Weights& w, int64_t in, int64_t out)
      : in_layer(w["in_layer"], in, out), norm(w["norm"], out, norm_eps) {}
  ggml_tensor* forward(Graph& g, ggml_tensor* x) const { return norm.forward(g, in_layer.forward(g, x)); }
  Linear in_layer;
  LayerNorm norm;
};

class Kandinsky5Transformer : public Model {
 public:
  Kandinsky5Transformer(const Config& config, const Weights& w)
      : raw_config_(config),
        config_(read_config(config)),
        time_in_(w["time_embeddings"]["in_layer"].at_least(Precision::half), config_.channels, config_.time_dim),
        time_out_(w["time_embeddings"]["out_layer"].at_least(Precision::half), config_.time_dim, config_.time_dim),
        text_embeddings_(w["text_embeddings"], config_.text_dim, config_.channels),
        pooled_text_embeddings_(w["pooled_text_embeddings"].at_least(Precision::half), config_.pooled_dim, config_.time_dim),
        visual_embeddings_(w["visual_embeddings"]["in_layer"].at_least(Precision::half),
                           patch * patch * config_.in_channels, config_.channels),
        out_modulation_(w["out_layer"]["modulation"], config_, 2),
        out_layer_(w["out_layer"]["out_layer"].at_least(Precision::half), config_.channels,
                   patch * patch * config_.out_channels) {
    for (int64_t i = 0; i < config_.text_blocks; ++i) text_blocks_.emplace_back(w["text_transformer_blocks"][i], config_);
    for (int64_t i = 0; i < config_.visual_blocks; ++i) {
      visual_blocks_.emplace_back(w["visual_transformer_blocks"][i], config_);
    }
  }

  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override;
  bool runs_in_loop() const override { return true; }

 private:
  std::vector<float> picture_angles(int64_t rows, int64_t columns, const std::vector<float>& scale) const;
  ggml_tensor* unpatched(Graph& g, ggml_tensor* x, int64_t columns, int64_t rows) const;

  Config raw_config_;
  TransformerConfig config_;
  Linear time_in_, time_out_;
  TextEmbedding text_embeddings_, pooled_text_embeddings_;
  Linear visual_embeddings_;
  Modulation out_modulation_;
  Linear out_layer_;
  std::vector<TextBlock> text_blocks_;
  std::vector<VisualBlock> visual_blocks_;
};

/// [1, 1, h, w, C] to [h / 2, w / 2, 2 * 2 * C].
HostTensor patches_of(const HostTensor& picture) {
  const int64_t height = picture.shape[2], width = picture.shape[3], channels = picture.shape[4];
  HostTensor patches;
  patches.shape = {height / patch, width / patch, patch * patch * channels};
  patches.f32.reserve(picture.f32.size());
  for (int64_t y = 0; y < height; y += patch) {
    for (int64_t x = 0; x < width; x += patch) {
      for (int64_t row = y; row < y + patch; ++row) {
        const auto first = picture.f32.begin() + (row * width + x) * channels;
        patches.f32.insert(patches.f32.end(), first, first + patch * channels);
      }
    }
  }
  return patches;
}

std::vector<float> Kandinsky5Transformer::picture_angles(int64_t rows, int64_t columns,
                                                         const std::vector<float>& scale) const {
  std::vector<float> axis_frequencies[3];
  for (int axis = 0; axis < 3; ++axis) axis_frequencies[axis] = frequencies(config_.axes[axis]);
  std::vector<float> angles;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      const int64_t positions[] = {0, row, column};
      for (int axis = 0; axis < 3; ++axis) {
        for (const float frequency : axis_frequencies[axis]) {
          angles.push_back(static_cast<float>(positions[axis]) * frequency / scale[axis]);
        }
      }
    }
  }
  return angles;
}

HostTensors Kandinsky5Transformer::prepare(const std::string&, const HostTensors& inputs) const {
  Inputs in(raw_config_, inputs);
  HostTensors prepared;
  const HostTensor& picture = in.real("hidden_states", {1, 1, Inputs::any, Inputs::any, config_.in_channels});
  const int64_t height = picture.shape[2], width = picture.shape[3];
  for (const int64_t size : {height, width}) {
    if (size % patch != 0 || size > patch * max_patches) {
      fail(ErrorCode::shape_mismatch, "{}: expected multiples of {} up to {} for the size of hidden_states but received {} x {}",
           raw_config_.component(), patch, patch * max_patches, height, width);
    }
  }
  prepared["patches"] = patches_of(picture);
  prepared["sinusoids"] = timestep_sinusoids(in.timestep(1), 1, config_.channels, {true, 0});
  const HostTensor& text = in.real("encoder_hidden_states", {1, Inputs::any, config_.text_dim});
  if (text.shape[1] > max_text_tokens) {
    fail(ErrorCode::shape_mismatch, "{}: expected at most {} tokens in encoder_hidden_states but received {}",
         raw_config_.component(), max_text_tokens, text.shape[1]);
  }
  prepared["text"] = text;
  prepared["pooled"] = in.real("pooled_projections", {1, config_.pooled_dim});
  const std::vector<float> scale = in.has("scale_factor") ? in.real("scale_factor", {3}).f32 : std::vector<float>{1, 1, 1};
  in.finish();

  std::vector<float> text_angles;
  for (int64_t position = 0; position < text.shape[1]; ++position) {
    for (const float frequency : frequencies(config_.head_dim)) {
      text_angles.push_back(static_cast<float>(position) * frequency);
    }
  }
  add_rotation(prepared, "text", text_angles, text.shape[1]);
  const int64_t rows = height / patch, columns = width / patch;
  add_rotation(prepared, "picture", picture_angles(rows, columns, scale), rows * columns);
  return prepared;
}

/// {2 * 2 * C, tokens} in the order (column, row, channel) to pixels {C, 2 * 2 * tokens}, row by row.
ggml_tensor* Kandinsky5Transformer::unpatched(Graph& g, ggml_tensor* x, int64_t columns, int64_t rows) const {
  ggml_context* c = g.context();
  const int64_t channels = config_.out_channels;
  x = ggml_reshape_3d(c, x, patch * patch, channels, rows * columns);
  x = ggml_cont(c, ggml_permute(c, x, 1, 0, 2, 3));  // {C, column and row, tokens}
  x = ggml_reshape_4d(c, x, patch * channels, patch, columns, rows);
  x = ggml_cont(c, ggml_permute(c, x, 0, 2, 1, 3));  // {column's C, columns, row, rows}
  return ggml_reshape_3d(c, x, channels, patch * patch * columns * rows, 1);
}

void Kandinsky5Transformer::build(const std::string&, Graph& g) const {
  ggml_context* c = g.context();
  ggml_tensor* time = time_in_.forward(g, g.input("sinusoids"), Activation::silu);
  time = time_out_.forward(g, time);
  g.tap("time_embeddings", time, 2);
  ggml_tensor* pooled = pooled_text_embeddings_.forward(g, g.input("pooled"));
  g.tap("pooled_text_embeddings", pooled, 2);
  const Operand condition = g.ops().operand(g, ggml_add(c, time, pooled), true);

  ggml_tensor* text = text_embeddings_.forward(g, g.input("text"));
  g.tap("text_embeddings", text, 3);
  text = ggml_reshape_2d(c, text, text->ne[0], text->ne[1]);
  const Rotation text_rotation(g, "text");
  for (const TextBlock& block : text_blocks_) text = block.forward(g, text, condition, text_rotation);

  const Operand context = g.ops().operand(g, text);
  const Rotation rotation(g, "picture");
  ggml_tensor* patches = g.input("patches");
  const int64_t columns = patches->ne[1], rows_of_patches = patches->ne[2];
  ggml_tensor* x = visual_embeddings_.forward(g, ggml_reshape_2d(c, patches, patches->ne[0], columns * rows_of_patches));
  for (const VisualBlock& block : visual_blocks_) x = block.forward(g, x, context, condition, rotation);

  ggml_tensor* rows = out_modulation_.rows(g, condition);
  x = g.ops().layer_norm(g, modulated(g, out_modulation_.row(g, rows, 0), out_modulation_.row(g, rows, 1)), x);
  g.output("velocity", unpatched(g, out_layer_.forward(g, x), columns, rows_of_patches), 3);
}

}  // namespace

std::unique_ptr<Model> make_kandinsky5_transformer(const Config& config, const Weights& w) {
  return std::make_unique<Kandinsky5Transformer>(config, w);
}

}  // namespace kandinsky
