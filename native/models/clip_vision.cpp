// CLIPVisionModelWithProjection: the image encoder of the Kandinsky priors (transformers models/clip/modeling_clip.py).
//
// forward: pixel_values [B, 3, image_size, image_size], normalized by the image processor -> image_embeds [B, D]
//
// Easy to get wrong:
// - The patch convolution has no bias; the class token comes first; the norm before the layers is spelled
//   "pre_layrnorm" in every checkpoint.
// - Only the class token passes post_layernorm and the projection.
#include "core/error.h"
#include "layers/conv2d.h"
#include "layers/transformer.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"

namespace kandinsky {

namespace {

class CLIPVisionModelWithProjection : public Model {
 public:
  CLIPVisionModelWithProjection(const Config& config, const Weights& w);
  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override;

 private:
  Config config_;
  int64_t channels_, image_channels_, image_size_;
  ggml_tensor* class_embedding_;
  Conv2d patch_embedding_;
  ggml_tensor* position_embedding_;
  LayerNorm pre_layernorm_, post_layernorm_;
  std::vector<TransformerBlock> layers_;
  Linear visual_projection_;
};

CLIPVisionModelWithProjection::CLIPVisionModelWithProjection(const Config& config, const Weights& w)
    : config_(config),
      channels_(size_from(config, "hidden_size", 768)),
      image_channels_(size_from(config, "num_channels", 3)),
      image_size_(size_from(config, "image_size", 224)) {
  const int64_t patch = size_from(config, "patch_size", 32);
  if (patch > image_size_ || patch > 1024) {
    fail(ErrorCode::unsupported_model, "{} config: expected a patch_size up to image_size but received {}", config.component(), patch);
  }
  const Weights model = w["vision_model"], embeddings = model["embeddings"];
  const int64_t side = image_size_ / patch;
  class_embedding_ = embeddings["class_embedding"].get({channels_});
  patch_embedding_ = Conv2d(embeddings["patch_embedding"], image_channels_, channels_, static_cast<int>(patch),
                            {static_cast<int>(patch), 0, 0, false});
  position_embedding_ = embeddings["position_embedding"]["weight"].get({side * side + 1, channels_});

  const float eps = eps_from(config, "layer_norm_eps", 1e-5);
  const TransformerBlock::Options options{channels_, size_from(config, "num_attention_heads", 12),
                                          size_from(config, "intermediate_size", 3072), eps,
                                          activation_from(config, "hidden_act", "quick_gelu")};
  pre_layernorm_ = LayerNorm(model["pre_layrnorm"], channels_, eps);
  const int64_t count = count_from(config, "num_hidden_layers", 12);
  for (int64_t i = 0; i < count; ++i) {
    layers_.emplace_back(model["encoder"]["layers"][i], TransformerBlock::clip_names, options);
  }
  post_layernorm_ = LayerNorm(model["post_layernorm"], channels_, eps);
  visual_projection_ = Linear(w["visual_projection"], channels_, size_from(config, "projection_dim", 512), false);
}

HostTensors CLIPVisionModelWithProjection::prepare(const std::string&, const HostTensors& inputs) const {
  Inputs in(config_, inputs);
  HostTensors prepared;
  prepared["pixel_values"] = in.real("pixel_values", {Inputs::any, image_channels_, image_size_, image_size_});
  in.finish();
  return prepared;
}

void CLIPVisionModelWithProjection::build(const std::string&, Graph& g) const {
  ggml_context* c = g.context();
  ggml_tensor* patches = patch_embedding_.forward(g, g.image_input("pixel_values"));
  const int64_t count = patches->ne[1] * patches->ne[2], batch = patches->ne[3];
  patches = ggml_reshape_3d(c, patches, channels_, count, batch);
  ggml_tensor* x = ggml_concat(c, ggml_repeat_4d(c, class_embedding_, channels_, 1, batch, 1), patches, 1);
  x = pre_layernorm_.forward(g, ggml_add(c, x, position_embedding_));
  for (size_t i = 0; i < layers_.size(); ++i) {
    x = layers_[i].forward(g, x, nullptr);
    g.tap("vision_model.encoder.layers." + std::to_string(i), x, 3);
  }
  ggml_tensor* class_token = ggml_cont(c, ggml_view_2d(c, x, channels_, batch, x->nb[2], 0));
  g.output("image_embeds", visual_projection_.forward(g, post_layernorm_.forward(g, class_token)), 2);
}

}  // namespace

std::unique_ptr<Model> make_clip_vision(const Config& config, const Weights& w) {
  return std::make_unique<CLIPVisionModelWithProjection>(config, w);
}

}  // namespace kandinsky
