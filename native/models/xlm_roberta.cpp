// MultilingualCLIP: the text encoder of the Kandinsky 2.1 decoders (diffusers pipelines/kandinsky/text_encoder.py), an
// XLM-RoBERTa (transformers models/xlm_roberta/modeling_xlm_roberta.py) with a linear projection of its mean.
//
// forward: input_ids int32 [B, L], attention_mask int32 [B, L] (1: text, 0: padding)
//   -> last_hidden_state [B, L, C], text_embeds [B, numDims]
//
// Easy to get wrong:
// - Positions count the tokens that are not padding, starting after pad_token_id; all padding has position pad_token_id.
// - The UNet attends to the padding, too: its states are computed like all others, from the keys of the text only.
// - Norms come after the residual sums (post-norm), and there is none at the end; "gelu" is the exact one.
// - The mean is over the text alone, padding left out.
#include <cmath>

#include "core/error.h"
#include "graph/composed_ops.h"
#include "layers/activation.h"
#include "layers/attention.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"

namespace kandinsky {

namespace {

constexpr Attention::Names attention_names{"attention.self.query", "attention.self.key", "attention.self.value",
                                           "attention.output.dense"};

struct PostNormBlock {
  struct Options {
    int64_t channels, heads, hidden_channels;
    float eps;
    Activation activation;
  };

  PostNormBlock(const Weights& w, const Options& options)
      : attention(w, attention_names, options.channels, options.heads),
        attention_norm(w["attention.output.LayerNorm"], options.channels, options.eps),
        intermediate(w["intermediate.dense"], options.channels, options.hidden_channels),
        output(w["output.dense"], options.hidden_channels, options.channels),
        output_norm(w["output.LayerNorm"], options.channels, options.eps),
        activation(options.activation) {}

  ggml_tensor* forward(Graph& g, ggml_tensor* x, ggml_tensor* mask) const {
    x = attention_norm.forward(g, attention.forward(g, g.ops().operand(g, x), mask, {}, x));
    const Operand hidden = g.ops().linear_operand(g, intermediate.product, g.ops().operand(g, x), activation);
    return output_norm.forward(g, output.forward(g, hidden, Activation::none, x));
  }

  Attention attention;
  LayerNorm attention_norm;
  Linear intermediate, output;
  LayerNorm output_norm;
  Activation activation;
};

class MultilingualCLIP : public Model {
 public:
  MultilingualCLIP(const Config& config, const Weights& w);
  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override;

 private:
  HostTensor positions(const HostTensor& ids) const;
  void check_mask(const HostTensor& mask) const;

  Config config_;
  int64_t channels_, vocabulary_, max_positions_, pad_;
  ggml_tensor* word_embeddings_;
  ggml_tensor* position_embeddings_;
  ggml_tensor* token_type_embeddings_;
  LayerNorm embedding_norm_;
  std::vector<PostNormBlock> layers_;
  Linear linear_transformation_;
};

MultilingualCLIP::MultilingualCLIP(const Config& config, const Weights& w)
    : config_(config),
      channels_(size_from(config, "hidden_size")),
      vocabulary_(size_from(config, "vocab_size")),
      max_positions_(size_from(config, "max_position_embeddings")),
      pad_(config.integer("pad_token_id", 1)) {
  choice_from(config, "position_embedding_type", {"absolute"}, "absolute");
  if (pad_ < 0 || pad_ >= vocabulary_ || pad_ + 1 >= max_positions_) {
    fail(ErrorCode::unsupported_model, "{} config: expected a pad_token_id below vocab_size and "
         "max_position_embeddings but received {}", config.component(), pad_);
  }
  const Weights embeddings = w["transformer"]["embeddings"];
  word_embeddings_ = embeddings["word_embeddings"]["weight"].lookup_table(vocabulary_, channels_);
  position_embeddings_ = embeddings["position_embeddings"]["weight"].get({max_positions_, channels_});
  token_type_embeddings_ =
      embeddings["token_type_embeddings"]["weight"].get({size_from(config, "type_vocab_size", 2), channels_});
  const float eps = eps_from(config, "layer_norm_eps", 1e-12);
  embedding_norm_ = LayerNorm(embeddings["LayerNorm"], channels_, eps);
  const PostNormBlock::Options options{channels_, size_from(config, "num_attention_heads"),
                                       size_from(config, "intermediate_size"), eps,
                                       activation_from(config, "hidden_act", "gelu")};
  const int64_t count = count_from(config, "num_hidden_layers");
  for (int64_t i = 0; i < count; ++i) layers_.emplace_back(w["transformer"]["encoder"]["layer"][i], options);
  linear_transformation_ = Linear(w["LinearTransformation"], channels_, size_from(config, "numDims", 768));
}

/// Position ids of transformers' create_position_ids_from_input_ids, [B * L].
HostTensor MultilingualCLIP::positions(const HostTensor& ids) const {
  const int64_t length = ids.shape[1];
  HostTensor positions;
  positions.shape = {static_cast<int64_t>(ids.i32.size())};
  positions.is_int = true;
  int32_t position = 0;
  for (size_t i = 0; i < ids.i32.size(); ++i) {
    if (i % length == 0) position = static_cast<int32_t>(pad_);
    const bool is_pad = ids.i32[i] == pad_;
    positions.i32.push_back(is_pad ? static_cast<int32_t>(pad_) : ++position);
  }
  return positions;
}

void MultilingualCLIP::check_mask(const HostTensor& mask) const {
  const int64_t length = mask.shape[1];
  for (int64_t b = 0; b < mask.shape[0]; ++b) {
    bool has_text = false;
    for (int64_t i = 0; i < length; ++i) {
      const int32_t value = mask.i32[b * length + i];
      if (value != 0 && value != 1) {
        fail(ErrorCode::invalid_argument, "{}: expected 0 or 1 in attention_mask but received {}", config_.component(), value);
      }
      has_text = has_text || value == 1;
    }
    if (!has_text) {
      fail(ErrorCode::invalid_argument, "{}: expected a 1 in every row of attention_mask but row {} has none", config_.component(), b);
    }
  }
}

HostTensors MultilingualCLIP::prepare(const std::string&, const HostTensors& inputs) const {
  Inputs in(config_, inputs);
  HostTensors prepared;
  const HostTensor& ids = prepared["input_ids"] = in.token_ids("input_ids", vocabulary_, max_positions_ - pad_ - 1);
  const int64_t batch = ids.shape[0], length = ids.shape[1];
  const HostTensor& mask = in.integers("attention_mask", {batch, length});
  in.finish();
  check_mask(mask);
  prepared["positions"] = positions(ids);

  HostTensor &key_mask = prepared["key_mask"], &mean = prepared["mean"];
  key_mask.shape = {batch, 1, length, length};
  mean.shape = {batch, 1, length};
  for (int64_t b = 0; b < batch; ++b) {
    const int32_t* row = mask.i32.data() + b * length;
    int64_t count = 0;
    for (int64_t i = 0; i < length; ++i) count += row[i];
    for (int64_t i = 0; i < length; ++i) mean.f32.push_back(static_cast<float>(row[i]) / count);
    for (int64_t query = 0; query < length; ++query) {
      for (int64_t key = 0; key < length; ++key) key_mask.f32.push_back(row[key] ? 0.0f : -INFINITY);
    }
  }
  return prepared;
}

void MultilingualCLIP::build(const std::string&, Graph& g) const {
  ggml_context* c = g.context();
  ggml_tensor* ids = g.input("input_ids");
  const int64_t length = ids->ne[0], batch = ids->ne[1];
  ggml_tensor* x = ggml_get_rows(c, word_embeddings_, ggml_reshape_1d(c, ids, length * batch));
  x = ggml_add(c, x, ggml_get_rows(c, position_embeddings_, g.input("positions")));
  x = ggml_add(c, x, ggml_view_1d(c, token_type_embeddings_, channels_, 0));
  x = embedding_norm_.forward(g, ggml_reshape_3d(c, x, channels_, length, batch));
  for (size_t i = 0; i < layers_.size(); ++i) {
    x = layers_[i].forward(g, x, g.input("key_mask"));
    g.tap("transformer.encoder.layer." + std::to_string(i), x, 3);
  }
  g.output("last_hidden_state", x, 3);
  ggml_tensor* mean = matrix_product(g, ggml_cont(c, ggml_transpose(c, x)), g.input("mean"));
  g.output("text_embeds", linear_transformation_.forward(g, ggml_reshape_2d(c, mean, channels_, batch)), 2);
}

}  // namespace

std::unique_ptr<Model> make_multilingual_clip(const Config& config, const Weights& w) {
  return std::make_unique<MultilingualCLIP>(config, w);
}

}  // namespace kandinsky
