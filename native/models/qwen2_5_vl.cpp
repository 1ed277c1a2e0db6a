// Qwen2_5_VLForConditionalGeneration as a text encoder: Qwen2.5-VL's language model without its head, which reads the
// prompts of Kandinsky 5 (transformers models/qwen2_5_vl; https://arxiv.org/abs/2502.13923).
//
// forward: input_ids int32 [B, L] -> last_hidden_state [B, L, C], after the final norm
//
// Easy to get wrong:
// - Fewer heads have keys and values than queries: each serves several query heads in a row.
// - Rotation pairs channel i with i + d / 2. For text all three axes have the same positions, so that it is the ordinary one.
// - "hidden_states[-1]" of the reference is normed.
// - The states' largest values are a hundred times the others: activations stay float32 whatever the weights are
//   (computed in bfloat16 the result's cosine to the exact one is 0.9).
#include <cmath>

#include "core/error.h"
#include "layers/attention.h"
#include "layers/rotary.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"

namespace kandinsky {

namespace {

// Also for the longest template and text: 55 + 1024 tokens, and their padding.
constexpr int64_t max_length = 4096;

struct TextConfig {
  int64_t channels, hidden_channels, layers, heads, key_heads, head_dim, vocabulary;
  float eps;
  double theta;
};

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
  }

  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override;
  bool needs_f32() const override { return true; }

 private:
  Config raw_config_;
  TextConfig config_;
  ggml_tensor* embed_tokens_;
  RmsNorm norm_;
  std::vector<DecoderLayer> layers_;
};

HostTensors Qwen25VL::prepare(const std::string&, const HostTensors& inputs) const {
  Inputs in(raw_config_, inputs);
  HostTensors prepared;
  const HostTensor& ids = prepared["input_ids"] = in.token_ids("input_ids", config_.vocabulary, max_length);
  in.finish();
  const int64_t length = ids.shape[1], count = config_.head_dim / 2;
  prepared["mask"] = causal_mask(length);
  std::vector<float> angles;
  for (int64_t position = 0; position < length; ++position) {
    for (int64_t i = 0; i < count; ++i) {
      const float exponent = static_cast<float>(2 * i) / static_cast<float>(config_.head_dim);
      angles.push_back(static_cast<float>(position) / std::pow(static_cast<float>(config_.theta), exponent));
    }
  }
  add_rotation(prepared, "text", angles, length);
  return prepared;
}

void Qwen25VL::build(const std::string&, Graph& g) const {
  ggml_context* c = g.context();
  ggml_tensor* ids = g.input("input_ids");
  const int64_t length = ids->ne[0], batch = ids->ne[1];
  ggml_tensor* x = ggml_get_rows(c, embed_tokens_, ggml_reshape_1d(c, ids, length * batch));
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
