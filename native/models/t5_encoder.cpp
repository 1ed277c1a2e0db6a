// T5EncoderModel: the encoder of T5 v1.1 and Flan-UL2, which reads the prompts of Kandinsky 3 (transformers models/t5;
// https://arxiv.org/abs/1910.10683, gated feed-forward: https://arxiv.org/abs/2002.05202).
//
// forward: input_ids int32 [B, L], optional attention_mask int32 [B, L] (1: text, 0: padding)
//          -> last_hidden_state [B, L, C]
//
// Easy to get wrong:
// - Scores are not divided by the root of the head's width, and the heads together may be wider than the states.
// - Positions are a bias of the scores, per head, by the distance of key and query: small distances have one of their own,
//   larger ones share it with their neighbours on a logarithmic scale. Block 0 has the table, all blocks use it.
// - Norms subtract no mean and have no bias; nor does any linear layer.
// - "gated-gelu" means the tanh approximation (gelu_new); Flan-UL2 has "gated-silu".
// - float16 has no room for the states that wo sums up: the reference keeps it in float32, and here states always are.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "layers/attention.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"

namespace kandinsky {

namespace {

// Also for the longest text: larger tables of distances would be a mistake.
constexpr int64_t max_length = 4096;
// What padding adds to a score. The reference's lowest float32 would overflow with the bias.
constexpr float masked = -1e30f;

constexpr Attention::Names t5_names{"q", "k", "v", "o"};

struct T5Config {
  int64_t channels, inner_channels, hidden_channels, heads, layers, vocabulary, buckets, max_distance;
  float eps;
  bool is_silu;
};

T5Config read_config(const Config& config) {
  T5Config c;
  c.channels = size_from(config, "d_model");
  c.heads = size_from(config, "num_heads");
  c.inner_channels = c.heads * size_from(config, "d_kv");
  c.hidden_channels = size_from(config, "d_ff");
  c.layers = count_from(config, "num_layers");
  c.vocabulary = size_from(config, "vocab_size");
  c.buckets = size_from(config, "relative_attention_num_buckets", 32);
  c.max_distance = size_from(config, "relative_attention_max_distance", 128);
  c.eps = eps_from(config, "layer_norm_epsilon", 1e-6);
  c.is_silu = choice_from(config, "feed_forward_proj", {"gated-gelu", "gated-silu"}, "relu") == "gated-silu";
  if (c.buckets < 4 || c.buckets % 2 != 0 || c.max_distance <= c.buckets / 4) {
    fail(ErrorCode::unsupported_model,
         "{} config: expected an even number of at least 4 relative_attention_num_buckets, and a "
         "relative_attention_max_distance above a quarter of it, but received {} and {}",
         config.component(), c.buckets, c.max_distance);
  }
  return c;
}

/// Where the bias for a key that is `distance` behind the query stands in the table (T5Attention's
/// _relative_position_bucket, bidirectional).
int32_t bucket_of(int64_t distance, const T5Config& c) {
  const int64_t half = c.buckets / 2, exact = half / 2, away = std::abs(distance);
  const int64_t first = distance > 0 ? half : 0;
  if (away < exact) return static_cast<int32_t>(first + away);
  // In float32, as torch: at powers of the base the digits decide.
  const float ratio = std::log(static_cast<float>(away) / static_cast<float>(exact)) /
                      static_cast<float>(std::log(static_cast<double>(c.max_distance) / static_cast<double>(exact)));
  const auto farther = static_cast<int64_t>(ratio * static_cast<float>(half - exact));
  return static_cast<int32_t>(first + std::min(half - 1, exact + farther));
}

struct T5Block {
  T5Block(const Weights& w, const T5Config& c)
      : attention_norm(w["layer"][0]["layer_norm"], c.channels, c.eps),
        attention(w["layer"][0]["SelfAttention"], t5_names,
                  {c.channels, c.heads, c.channels, c.inner_channels, false, false}),
        feed_forward_norm(w["layer"][1]["layer_norm"], c.channels, c.eps),
        wi_0(w["layer"][1]["DenseReluDense"]["wi_0"], c.channels, c.hidden_channels, false),
        wi_1(w["layer"][1]["DenseReluDense"]["wi_1"], c.channels, c.hidden_channels, false),
        wo(w["layer"][1]["DenseReluDense"]["wo"], c.hidden_channels, c.channels, false),
        is_silu(c.is_silu) {}

  ggml_tensor* forward(Graph& g, ggml_tensor* x, ggml_tensor* mask) const {
    ggml_context* c = g.context();
    Ops& ops = g.ops();
    x = attention.forward(g, ops.operand(g, attention_norm.forward(g, x)), mask, {}, x);
    const Operand y = ops.operand(g, feed_forward_norm.forward(g, x));
    ggml_tensor* gate = wi_0.forward(g, y, is_silu ? Activation::silu : Activation::none);
    if (!is_silu) gate = tanh_gelu(g, gate);
    return wo.forward(g, ggml_mul(c, gate, wi_1.forward(g, y)), Activation::none, x);
  }

  /// x * sigmoid(2 z) = x / 2 * (1 + tanh(z)) with z = sqrt(2/pi) (x + 0.044715 x^3). ggml_gelu looks its values up in a
  /// float16 table on the CPU.
  static ggml_tensor* tanh_gelu(Graph& g, ggml_tensor* x) {
    ggml_context* c = g.context();
    constexpr float scale = 2 * 0.7978845608f;
    ggml_tensor* inner = ggml_mul(c, x, ggml_scale_bias(c, ggml_sqr(c, x), scale * 0.044715f, scale));
    return ggml_mul(c, x, ggml_sigmoid(c, inner));
  }

  RmsNorm attention_norm;
  Attention attention;
  RmsNorm feed_forward_norm;
  Linear wi_0, wi_1, wo;
  bool is_silu;
};

class T5Encoder : public Model {
 public:
  T5Encoder(const Config& config, const Weights& w)
      : raw_config_(config),
        config_(read_config(config)),
        shared_(w["shared"]["weight"].lookup_table(config_.vocabulary, config_.channels)),
        // Every score has it.
        position_bias_(w["encoder"]["block"][0]["layer"][0]["SelfAttention"]["relative_attention_bias"]["weight"].get(
            {config_.buckets, config_.heads})),
        final_norm_(w["encoder"]["final_layer_norm"], config_.channels, config_.eps) {
    for (int64_t i = 0; i < config_.layers; ++i) blocks_.emplace_back(w["encoder"]["block"][i], config_);
  }

  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override;

 private:
  ggml_tensor* score_bias(Graph& g, int64_t length, int64_t batch) const;

  Config raw_config_;
  T5Config config_;
  ggml_tensor* shared_;
  ggml_tensor* position_bias_;
  RmsNorm final_norm_;
  std::vector<T5Block> blocks_;
};

HostTensors T5Encoder::prepare(const std::string&, const HostTensors& inputs) const {
  Inputs in(raw_config_, inputs);
  HostTensors prepared;
  const HostTensor& ids = prepared["input_ids"] = in.token_ids("input_ids", config_.vocabulary, max_length);
  const int64_t batch = ids.shape[0], length = ids.shape[1];
  if (in.has("attention_mask")) {
    HostTensor& mask = prepared["mask"];
    mask.shape = {batch, 1, 1, length};
    for (const int32_t value : in.mask("attention_mask", {batch, length}).i32)
      mask.f32.push_back(value == 1 ? 0.0f : masked);
  }
  in.finish();
  return prepared;
}

/// {keys, queries, heads, B}, or of one sample where nothing is masked.
ggml_tensor* T5Encoder::score_bias(Graph& g, int64_t length, int64_t batch) const {
  ggml_context* c = g.context();
  ggml_tensor* buckets = g.indices("distances", [&] {
    std::vector<int32_t> rows;
    for (int64_t query = 0; query < length; ++query) {
      for (int64_t key = 0; key < length; ++key) rows.push_back(bucket_of(key - query, config_));
    }
    return rows;
  });
  ggml_tensor* bias = ggml_get_rows(c, position_bias_, buckets);  // {heads, keys * queries}
  bias = ggml_reshape_4d(c, ggml_cont(c, ggml_transpose(c, bias)), length, length, config_.heads, 1);
  if (!g.has_input("mask")) return bias;
  return ggml_add(c, ggml_repeat_4d(c, bias, length, length, config_.heads, batch), g.input("mask"));
}

void T5Encoder::build(const std::string&, Graph& g) const {
  ggml_context* c = g.context();
  ggml_tensor* ids = g.input("input_ids");
  const int64_t length = ids->ne[0], batch = ids->ne[1];
  ggml_tensor* x = ggml_get_rows(c, shared_, ggml_reshape_1d(c, ids, length * batch));
  x = ggml_reshape_3d(c, x, config_.channels, length, batch);
  ggml_tensor* bias = score_bias(g, length, batch);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    x = blocks_[i].forward(g, x, bias);
    g.tap("encoder.block." + std::to_string(i), x, 3);
  }
  g.output("last_hidden_state", final_norm_.forward(g, x), 3);
}

}  // namespace

std::unique_ptr<Model> make_t5_encoder(const Config& config, const Weights& w) {
  return std::make_unique<T5Encoder>(config, w);
}

}  // namespace kandinsky
