// PriorTransformer: denoises CLIP image embeddings from text (diffusers models/transformers/prior_transformer.py;
// the idea is unCLIP's, https://arxiv.org/abs/2204.06125).
//
// forward: hidden_states [B, D] (noisy), timestep [1 or B], proj_embedding [B, D] (pooled text),
//          encoder_hidden_states [B, N, D], optional attention_mask int32 [B, N] (1 = a real token)
//          -> predicted_image_embedding [B, D]
// post_process: latents [B, D] -> image_embeds [B, D], the statistics that training removed put back.
//
// Easy to get wrong:
// - Token order: text, pooled text, time, noisy embedding, prd; the result is read from the last one.
// - The mask is causal, additive with -10000 (a masked future key gets -20000), and the extra tokens are never masked.
//   Without attention_mask there is no causal mask either.
// - So text tokens see neither time nor noise: their keys and values stay the same over a generation, and a step only has
//   to compute the last tokens. The reference computes all 81 each time.
// - Missing keys of the config and null differ in diffusers ("prd" against no such token) but not here, where the
//   presence of the weights decides.
#include "core/error.h"
#include "layers/time_embedding.h"
#include "layers/transformer.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"

namespace kandinsky {

namespace {

class PriorTransformer : public Model {
 public:
  PriorTransformer(const Config& config, const Weights& w);
  std::vector<std::string> methods() const override { return {"forward", "post_process"}; }
  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override;
  bool runs_in_loop() const override { return true; }

 private:
  HostTensor mask(const HostTensor& attention_mask, int64_t first_query, int64_t tokens) const;
  ggml_tensor* text(Graph& g) const;
  ggml_tensor* state(Graph& g) const;
  ggml_tensor* with_positions(Graph& g, ggml_tensor* x, int64_t first) const;
  int64_t token_count() const { return text_tokens_ + extra_tokens_; }
  int64_t fixed_tokens() const { return text_tokens_ + 1; }  // text and pooled text

  Config config_;
  int64_t channels_, embedding_dim_, pooled_dim_, output_dim_, text_tokens_, extra_tokens_;
  bool has_prd_, has_text_proj_;
  TimestepEmbedding time_embedding_;
  Linear proj_in_, embedding_proj_, encoder_hidden_states_proj_, proj_to_clip_embeddings_;
  ggml_tensor* positional_embedding_;
  ggml_tensor* prd_embedding_ = nullptr;
  std::vector<TransformerBlock> blocks_;
  LayerNorm norm_out_;
  ggml_tensor* clip_mean_;
  ggml_tensor* clip_std_;
};

int64_t channels_from(const Config& config) {
  return size_from(config, "num_attention_heads", 32) * size_from(config, "attention_head_dim", 64);
}

PriorTransformer::PriorTransformer(const Config& config, const Weights& w)
    : config_(config),
      channels_(channels_from(config)),
      embedding_dim_(size_from(config, "embedding_dim", 768)),
      pooled_dim_(size_from(config, "embedding_proj_dim", embedding_dim_)),
      output_dim_(size_from(config, "clip_embed_dim", embedding_dim_)),
      text_tokens_(size_from(config, "num_embeddings", 77)),
      extra_tokens_(size_from(config, "additional_embeddings", 4)),
      has_prd_(w.has("prd_embedding")),
      has_text_proj_(w["encoder_hidden_states_proj"].has("weight")),
      time_embedding_(w["time_embedding"].at_least(Precision::half), channels_, size_from(config, "time_embed_dim", channels_), channels_,
                      activation_from(config, "time_embed_act_fn", "silu")),
      proj_in_(w["proj_in"], embedding_dim_, channels_),
      embedding_proj_(w["embedding_proj"], pooled_dim_, channels_),
      proj_to_clip_embeddings_(w["proj_to_clip_embeddings"].at_least(Precision::half), channels_, output_dim_),
      norm_out_(w["norm_out"], channels_, 1e-5f) {
  config.require_absent("norm_in_type");
  config.require_absent("embedding_proj_norm_type");
  config.require("added_emb_type", std::string("prd"));
  config.require("encoder_hid_proj_type", std::string("linear"));
  if (extra_tokens_ != (has_prd_ ? 4 : 3)) {
    fail(ErrorCode::unsupported_model, "{} config: expected {} for additional_embeddings but received {}", config.component(), has_prd_ ? 4 : 3, extra_tokens_);
  }
  if (has_text_proj_) {
    encoder_hidden_states_proj_ = Linear(w["encoder_hidden_states_proj"], embedding_dim_, channels_);
  }
  positional_embedding_ = w["positional_embedding"].get({1, token_count(), channels_});
  if (has_prd_) prd_embedding_ = w["prd_embedding"].get({1, 1, channels_});
  const TransformerBlock::Options options{channels_, size_from(config, "num_attention_heads", 32), 4 * channels_, 1e-5f,
                                          Activation::gelu};
  const int64_t count = count_from(config, "num_layers", 20);
  for (int64_t i = 0; i < count; ++i) {
    blocks_.emplace_back(w["transformer_blocks"][i], TransformerBlock::diffusers_names, options);
  }
  clip_mean_ = w["clip_mean"].get({1, output_dim_});
  clip_std_ = w["clip_std"].get({1, output_dim_});
}

/// Additive, [B, 1, queries, keys]: the queries from `first_query` on, of the first `tokens` tokens.
HostTensor PriorTransformer::mask(const HostTensor& attention_mask, int64_t first_query, int64_t tokens) const {
  const int64_t batch = attention_mask.shape[0];
  HostTensor mask;
  mask.shape = {batch, 1, tokens - first_query, tokens};
  mask.f32.reserve(element_count(mask.shape));
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t query = first_query; query < tokens; ++query) {
      for (int64_t key = 0; key < tokens; ++key) {
        const bool is_masked = key < text_tokens_ && attention_mask.i32[b * text_tokens_ + key] == 0;
        mask.f32.push_back((is_masked ? -10000.0f : 0.0f) + (key > query ? -10000.0f : 0.0f));
      }
    }
  }
  return mask;
}

HostTensors PriorTransformer::prepare(const std::string& method, const HostTensors& inputs) const {
  Inputs in(config_, inputs);
  HostTensors prepared;
  if (method == "post_process") {
    prepared["latents"] = in.real("latents", {Inputs::any, output_dim_});
    in.finish();
    return prepared;
  }
  const HostTensor& noisy = prepared["hidden_states"] = in.real("hidden_states", {Inputs::any, embedding_dim_});
  const int64_t batch = noisy.shape[0];
  prepared["sinusoids"] = timestep_sinusoids(in.timestep(batch), batch, channels_, {true, 0});
  prepared["proj_embedding"] = in.real("proj_embedding", {batch, pooled_dim_});
  prepared["encoder_hidden_states"] =
      in.real("encoder_hidden_states", {batch, text_tokens_, has_text_proj_ ? embedding_dim_ : channels_});
  if (in.has("attention_mask")) {
    const HostTensor& attention_mask = in.mask("attention_mask", {batch, text_tokens_});
    prepared["text_mask"] = mask(attention_mask, 0, fixed_tokens());
    prepared["state_mask"] = mask(attention_mask, fixed_tokens(), token_count());
  }
  in.finish();
  return prepared;
}

/// Text and pooled text: what stays the same over a generation.
ggml_tensor* PriorTransformer::text(Graph& g) const {
  ggml_tensor* x = g.input("encoder_hidden_states");
  if (has_text_proj_) x = encoder_hidden_states_proj_.forward(g, x);
  ggml_tensor* pooled = embedding_proj_.forward(g, g.input("proj_embedding"));
  return with_positions(g, ggml_concat(g.context(), x, ggml_reshape_3d(g.context(), pooled, channels_, 1, x->ne[2]), 1),
                        0);
}

/// Time, noisy embedding and prd: what changes from step to step.
ggml_tensor* PriorTransformer::state(Graph& g) const {
  ggml_context* c = g.context();
  const int64_t batch = g.input("hidden_states")->ne[1];
  const auto as_token = [&](ggml_tensor* x) { return ggml_reshape_3d(c, x, channels_, 1, batch); };
  ggml_tensor* x = as_token(time_embedding_.forward(g, g.input("sinusoids")));
  x = ggml_concat(c, x, as_token(proj_in_.forward(g, g.input("hidden_states"))), 1);
  if (has_prd_) x = ggml_concat(c, x, ggml_repeat_4d(c, prd_embedding_, channels_, 1, batch, 1), 1);
  return with_positions(g, x, fixed_tokens());
}

ggml_tensor* PriorTransformer::with_positions(Graph& g, ggml_tensor* x, int64_t first) const {
  ggml_context* c = g.context();
  const size_t row = positional_embedding_->nb[1];
  return ggml_add(c, x, ggml_view_2d(c, positional_embedding_, channels_, x->ne[1], row, first * row));
}

void PriorTransformer::build(const std::string& method, Graph& g) const {
  ggml_context* c = g.context();
  if (method == "post_process") {
    g.output("image_embeds", ggml_add(c, ggml_mul(c, g.input("latents"), clip_std_), clip_mean_), 2);
    return;
  }
  ggml_tensor* fixed = text(g);
  ggml_tensor* x = state(g);
  const bool is_causal = g.has_input("state_mask");
  if (!is_causal) x = ggml_concat(c, fixed, x, 1);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    KeysValues of_text;
    if (is_causal) {
      fixed = blocks_[i].forward(g, fixed, g.input("text_mask"), {}, &of_text);
      of_text = {g.keep(of_text.k), g.keep(of_text.v)};
    }
    x = blocks_[i].forward(g, x, is_causal ? g.input("state_mask") : nullptr, of_text);
    const std::string name = "transformer_blocks." + std::to_string(i);
    if (g.wants(name)) g.tap(name, is_causal ? ggml_concat(c, g.keep(fixed), x, 1) : x, 3);
  }
  ggml_tensor* last = ggml_cont(c, ggml_view_2d(c, x, channels_, x->ne[2], x->nb[2], (x->ne[1] - 1) * x->nb[1]));
  g.output("predicted_image_embedding", proj_to_clip_embeddings_.forward(g, norm_out_.forward(g, last)), 2);
}

}  // namespace

std::unique_ptr<Model> make_prior_transformer(const Config& config, const Weights& w) {
  return std::make_unique<PriorTransformer>(config, w);
}

}  // namespace kandinsky
