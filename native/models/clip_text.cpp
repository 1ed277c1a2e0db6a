// CLIPTextModelWithProjection, the text encoder of the Kandinsky priors, and CLIPTextModel, Kandinsky 5's second one
// (transformers models/clip/modeling_clip.py).
//
// forward: input_ids int32 [B, L] -> last_hidden_state [B, L, C] (after final_layer_norm), and of the pooled token
//          text_embeds [B, D], or without projection pooler_output [B, C]
//
// Easy to get wrong:
// - Only the causal mask: the pipelines pass no padding mask.
// - The pooled token. With eos_token_id 2 in the config (a legacy value that is not the tokenizer's) it is the first
//   position of the largest id; otherwise the first position of eos_token_id, or 0 without one.
// - A checkpoint of CLIPTextModel may be a whole CLIP, with the text's settings in text_config.
// - "gelu" is the exact one; ViT-L has quick_gelu.
#include <algorithm>
#include <optional>

#include "layers/transformer.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"

namespace kandinsky {

namespace {

constexpr int64_t legacy_eos = 2;

class CLIPText : public Model {
 public:
  CLIPText(const Config& config, const Weights& w, bool has_projection);
  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override;

 private:
  int64_t pooled_position(const int32_t* ids, int64_t length) const;

  Config config_;
  int64_t channels_, vocabulary_, max_length_, eos_;
  ggml_tensor* token_embedding_;
  ggml_tensor* position_embedding_;
  std::vector<TransformerBlock> layers_;
  LayerNorm final_layer_norm_;
  std::optional<Linear> text_projection_;
};

CLIPText::CLIPText(const Config& config, const Weights& w, bool has_projection)
    : config_(config),
      channels_(size_from(config, "hidden_size", 512)),
      vocabulary_(size_from(config, "vocab_size", 49408)),
      max_length_(size_from(config, "max_position_embeddings", 77)),
      eos_(config.integer("eos_token_id", 49407)) {
  const Weights model = w["text_model"];
  token_embedding_ = model["embeddings"]["token_embedding"]["weight"].lookup_table(vocabulary_, channels_);
  position_embedding_ = model["embeddings"]["position_embedding"]["weight"].get({max_length_, channels_});
  const float eps = eps_from(config, "layer_norm_eps", 1e-5);
  const TransformerBlock::Options options{channels_, size_from(config, "num_attention_heads", 8),
                                          size_from(config, "intermediate_size", 2048), eps,
                                          activation_from(config, "hidden_act", "quick_gelu")};
  const int64_t count = count_from(config, "num_hidden_layers", 12);
  for (int64_t i = 0; i < count; ++i) {
    layers_.emplace_back(model["encoder"]["layers"][i], TransformerBlock::clip_names, options);
  }
  final_layer_norm_ = LayerNorm(model["final_layer_norm"], channels_, eps);
  if (has_projection) text_projection_ = Linear(w["text_projection"], channels_, size_from(config, "projection_dim", 512), false);
}

int64_t CLIPText::pooled_position(const int32_t* ids, int64_t length) const {
  if (eos_ == legacy_eos) return std::max_element(ids, ids + length) - ids;
  const int32_t* found = std::find(ids, ids + length, static_cast<int32_t>(eos_));
  return found == ids + length ? 0 : found - ids;
}

HostTensors CLIPText::prepare(const std::string&, const HostTensors& inputs) const {
  Inputs in(config_, inputs);
  HostTensors prepared;
  const HostTensor& ids = prepared["input_ids"] = in.token_ids("input_ids", vocabulary_, max_length_);
  in.finish();
  const int64_t batch = ids.shape[0], length = ids.shape[1];

  HostTensor& pooled = prepared["pooled_rows"];
  pooled.shape = {batch};
  pooled.is_int = true;
  for (int64_t b = 0; b < batch; ++b) {
    pooled.i32.push_back(static_cast<int32_t>(b * length + pooled_position(ids.i32.data() + b * length, length)));
  }
  prepared["mask"] = causal_mask(length);
  return prepared;
}

void CLIPText::build(const std::string&, Graph& g) const {
  ggml_context* c = g.context();
  ggml_tensor* ids = g.input("input_ids");
  const int64_t length = ids->ne[0], batch = ids->ne[1];
  ggml_tensor* x = ggml_get_rows(c, token_embedding_, ggml_reshape_1d(c, ids, length * batch));
  x = ggml_reshape_3d(c, x, channels_, length, batch);
  x = ggml_add(c, x, ggml_view_2d(c, position_embedding_, channels_, length, position_embedding_->nb[1], 0));
  for (size_t i = 0; i < layers_.size(); ++i) {
    x = layers_[i].forward(g, x, g.input("mask"));
    g.tap("text_model.encoder.layers." + std::to_string(i), x, 3);
  }
  x = final_layer_norm_.forward(g, x);
  g.output("last_hidden_state", x, 3);
  ggml_tensor* pooled = ggml_get_rows(c, ggml_reshape_2d(c, x, channels_, length * batch), g.input("pooled_rows"));
  text_projection_ ? g.output("text_embeds", text_projection_->forward(g, pooled), 2) : g.output("pooler_output", pooled, 2);
}

}  // namespace

std::unique_ptr<Model> make_clip_text(const Config& config, const Weights& w) {
  return std::make_unique<CLIPText>(config, w, true);
}

std::unique_ptr<Model> make_clip_text_model(const Config& config, const Weights& w) {
  return std::make_unique<CLIPText>(config.section("text_config"), w, false);
}

}  // namespace kandinsky
