// DPTForDepthEstimation: depth from one picture ("Vision Transformers for Dense Prediction",
// https://arxiv.org/abs/2103.13413; transformers models/dpt/modeling_dpt.py; published as Intel/dpt-large).
//
// forward: pixel_values [B, 3, H, W], normalized by the image processor -> predicted_depth [B, h, w], at least 0, larger
// is nearer; with the config of dpt-large h and w are H and W, cut to multiples of the patch size.
//
// Easy to get wrong:
// - The neck takes what comes out of some layers of the encoder as it is: dpt.layernorm has weights but no part in this.
// - Bilinear resizing comes in both kinds: align_corners where the image doubles, not so for position embeddings and
//   for features that do not have the size of what they are added to.
// - A residual unit adds its input, not the ReLU of it. The first fusion layer has a residual_layer1 that nothing uses.
// - The reference takes square images only unless its neck is told the grid of patches; here any grid works.
#include <cmath>
#include <optional>

#include "core/error.h"
#include "graph/resample.h"
#include "layers/conv2d.h"
#include "layers/conv_transpose2d.h"
#include "layers/transformer.h"
#include "models/config_checks.h"
#include "models/inputs.h"
#include "models/model.h"

namespace kandinsky {

namespace {

constexpr size_t max_levels = 16;
constexpr double max_factor = 16;

/// Tokens of one encoder layer to an image of `channels` channels, `factor` times as large as the grid of patches.
struct ReassembleLayer {
  ReassembleLayer(const Weights& w, int64_t hidden, int64_t channels, double factor)
      : projection(w["projection"], hidden, channels, 1) {
    if (factor > 1) enlarge.emplace(w["resize"], channels, channels, static_cast<int>(factor));
    if (factor < 1) {
      const int stride = static_cast<int>(1 / factor);  // cut off as in the reference
      shrink.emplace(w["resize"], channels, channels, 3, Conv2d::Options{stride, 1, 1, true});
    }
  }

  /// x: ne = {hidden, W, H, B}.
  ggml_tensor* forward(Graph& g, ggml_tensor* x) const {
    x = projection.forward(g, x);
    if (enlarge) return enlarge->forward(g, x);
    return shrink ? shrink->forward(g, x) : x;
  }

  Conv2d projection;
  std::optional<ConvTranspose2d> enlarge;
  std::optional<Conv2d> shrink;
};

/// x + convolution2(relu(convolution1(relu(x)))).
struct ResidualUnit {
  ResidualUnit(const Weights& w, int64_t channels, bool has_bias)
      : convolution1(w["convolution1"], channels, channels, 3, {1, 1, 1, has_bias}),
        convolution2(w["convolution2"], channels, channels, 3, {1, 1, 1, has_bias}) {}

  ggml_tensor* forward(Graph& g, ggml_tensor* x) const {
    ggml_context* c = g.context();
    ggml_tensor* y = convolution1.forward(g, ggml_relu(c, x));
    return ggml_add(c, convolution2.forward(g, ggml_relu(c, y)), x);
  }

  Conv2d convolution1, convolution2;
};

struct FusionLayer {
  FusionLayer(const Weights& w, int64_t channels, bool has_bias, bool is_first)
      : residual_layer2(w["residual_layer2"], channels, has_bias), projection(w["projection"], channels, channels, 1) {
    if (!is_first) residual_layer1.emplace(w["residual_layer1"], channels, has_bias);
  }

  /// x: what the layer before made, null for the first; feature: an image of this level. Returns twice the size.
  ggml_tensor* forward(Graph& g, ggml_tensor* x, ggml_tensor* feature) const {
    ggml_context* c = g.context();
    if (x) {
      const bool same_size = feature->ne[1] == x->ne[1] && feature->ne[2] == x->ne[2];
      if (!same_size) feature = bilinear_resize(g, feature, x->ne[1], x->ne[2], false);
      x = ggml_add(c, x, residual_layer1->forward(g, feature));
    } else {
      x = feature;
    }
    // The reference projects the enlarged image. Both are linear, and this way the product has a quarter of the size.
    x = projection.forward(g, residual_layer2.forward(g, x));
    return bilinear_resize(g, x, 2 * x->ne[1], 2 * x->ne[2], true);
  }

  std::optional<ResidualUnit> residual_layer1;
  ResidualUnit residual_layer2;
  Conv2d projection;
};

class DPTForDepthEstimation : public Model {
 public:
  DPTForDepthEstimation(const Config& config, const Weights& w);
  HostTensors prepare(const std::string& method, const HostTensors& inputs) const override;
  void build(const std::string& method, Graph& g) const override;

 private:
  void make_encoder(const Weights& w);
  void make_neck(const Weights& w);

  ggml_tensor* embed(Graph& g, ggml_tensor* patches) const;
  ggml_tensor* read_out(Graph& g, ggml_tensor* tokens, size_t level) const;
  ggml_tensor* fuse(Graph& g, const std::vector<ggml_tensor*>& features) const;

  Config config_;
  int64_t channels_, image_channels_, patch_size_;
  Activation activation_;
  std::string readout_type_;
  std::vector<int64_t> out_indices_;

  ggml_tensor* cls_token_;
  ggml_tensor* position_embeddings_;
  int64_t side_;  // of the square grid of patches that position_embeddings_ is for
  Conv2d patch_projection_;
  std::vector<TransformerBlock> layers_;
  std::vector<Linear> readout_projects_;
  std::vector<ReassembleLayer> reassemble_layers_;
  std::vector<Conv2d> convs_;
  std::vector<FusionLayer> fusion_layers_;
  Conv2d head_0_, head_2_, head_4_;
};

void refuse_other_kinds(const Config& config) {
  config.require("is_hybrid", false);
  config.require_absent("backbone");
  if (!config.has("backbone_out_indices")) {  // the reference sets it to null for backbones with a config of their own
    fail(ErrorCode::unsupported_model, "{} config: expected DPT with its own vision transformer, but there are no "
         "backbone_out_indices", config.component());
  }
  config.require("qkv_bias", true);
  config.require("use_batch_norm_in_fusion_residual", false);
  config.require("add_projection", false);
  config.require("head_in_index", int64_t{-1});
}

/// Layers whose outputs are used, ascending as in the reference whatever the order in the config.
std::vector<int64_t> out_indices_from(const Config& config, int64_t layer_count) {
  const std::vector<int64_t> indices = config.integers("backbone_out_indices");
  int64_t last = -1;
  for (const int64_t index : indices) {
    if (index <= last || index >= layer_count) {
      fail(ErrorCode::unsupported_model, "{} config: expected ascending numbers below num_hidden_layers ({}) for "
           "backbone_out_indices but received {}", config.component(), layer_count, index);
    }
    last = index;
  }
  if (indices.empty() || indices.size() > max_levels) {
    fail(ErrorCode::unsupported_model, "{} config: expected 1 to {} values for backbone_out_indices but received {}", config.component(), max_levels, indices.size());
  }
  return indices;
}

std::vector<double> factors_from(const Config& config, size_t count) {
  const std::vector<double> factors = config.reals("reassemble_factors");
  for (const double factor : factors) {
    const bool is_known = factor > 1 ? factor <= max_factor && factor == std::floor(factor) : factor >= 1 / max_factor;
    if (!is_known) {
      fail(ErrorCode::unsupported_model, "{} config: expected whole numbers up to {}, or fractions from {}, for "
           "reassemble_factors but received {}", config.component(), max_factor, 1 / max_factor, factor);
    }
  }
  if (factors.size() != count) {
    fail(ErrorCode::unsupported_model, "{} config: expected {} values for reassemble_factors, as many as for "
         "backbone_out_indices, but received {}", config.component(), count, factors.size());
  }
  return factors;
}

DPTForDepthEstimation::DPTForDepthEstimation(const Config& config, const Weights& w)
    : config_(config),
      channels_(size_from(config, "hidden_size", 768)),
      image_channels_(size_from(config, "num_channels", 3)),
      patch_size_(size_from(config, "patch_size", 16)),
      activation_(activation_from(config, "hidden_act", "gelu")),
      readout_type_(choice_from(config, "readout_type", {"project", "add", "ignore"}, "project")) {
  refuse_other_kinds(config);
  make_encoder(w["dpt"]);
  make_neck(w["neck"]);
  const Weights head = w["head"]["head"];
  const int64_t features = size_from(config, "fusion_hidden_size", 256);
  head_0_ = Conv2d(head[0], features, features / 2, 3);
  head_2_ = Conv2d(head[2], features / 2, 32, 3);
  head_4_ = Conv2d(head[4], 32, 1, 1);
}

void DPTForDepthEstimation::make_encoder(const Weights& w) {
  const int64_t image_size = size_from(config_, "image_size", 384);
  if (patch_size_ > image_size || patch_size_ > 1024) {
    fail(ErrorCode::unsupported_model, "{} config: expected a patch_size up to image_size but received {}", config_.component(), patch_size_);
  }
  const Weights embeddings = w["embeddings"];
  side_ = image_size / patch_size_;
  cls_token_ = embeddings["cls_token"].get({1, 1, channels_});
  position_embeddings_ = embeddings["position_embeddings"].get({1, side_ * side_ + 1, channels_});
  const int patch = static_cast<int>(patch_size_);
  patch_projection_ =
      Conv2d(embeddings["patch_embeddings"]["projection"], image_channels_, channels_, patch, {patch, 0, 0, true});

  const TransformerBlock::Options options{channels_, size_from(config_, "num_attention_heads", 12),
                                          size_from(config_, "intermediate_size", 3072),
                                          eps_from(config_, "layer_norm_eps", 1e-12), activation_};
  const int64_t count = count_from(config_, "num_hidden_layers", 12);
  out_indices_ = out_indices_from(config_, count);
  // Layers after the last one that is used compute nothing.
  for (int64_t i = 0; i <= out_indices_.back(); ++i) {
    layers_.emplace_back(w["encoder"]["layer"][i], TransformerBlock::vit_names, options);
  }
}

void DPTForDepthEstimation::make_neck(const Weights& w) {
  const size_t levels = out_indices_.size();
  const std::vector<double> factors = factors_from(config_, levels);
  const std::vector<int64_t> widths = sizes_from(config_, "neck_hidden_sizes", levels);
  const int64_t features = size_from(config_, "fusion_hidden_size", 256);
  const bool has_bias = config_.boolean("use_bias_in_fusion_residual", true);
  const Weights reassemble = w["reassemble_stage"];
  for (size_t i = 0; i < levels; ++i) {
    if (readout_type_ == "project") {
      readout_projects_.emplace_back(reassemble["readout_projects"][i][0], 2 * channels_, channels_);
    }
    reassemble_layers_.emplace_back(reassemble["layers"][i], channels_, widths[i], factors[i]);
    convs_.emplace_back(w["convs"][i], widths[i], features, 3, Conv2d::Options{1, 1, 1, false});
    fusion_layers_.emplace_back(w["fusion_stage"]["layers"][i], features, has_bias, i == 0);
  }
}

HostTensors DPTForDepthEstimation::prepare(const std::string&, const HostTensors& inputs) const {
  Inputs in(config_, inputs);
  const HostTensor& pixels = in.real("pixel_values", {Inputs::any, image_channels_, Inputs::any, Inputs::any});
  in.finish();
  if (pixels.shape[2] < patch_size_ || pixels.shape[3] < patch_size_) {
    fail(ErrorCode::shape_mismatch, "{}: expected pixel_values of at least {} x {} pixels but received {}", config_.component(), patch_size_, patch_size_, shape_text(pixels.shape));
  }
  return {{"pixel_values", pixels}};
}

/// patches: ne = {C, W, H, B}; returns the class token and the patches, {C, 1 + W * H, B}, with their positions.
ggml_tensor* DPTForDepthEstimation::embed(Graph& g, ggml_tensor* patches) const {
  ggml_context* c = g.context();
  const int64_t width = patches->ne[1], height = patches->ne[2], batch = patches->ne[3];
  ggml_tensor* positions = position_embeddings_;
  if (width != side_ || height != side_) {
    ggml_tensor* first = ggml_view_2d(c, positions, channels_, 1, positions->nb[1], 0);
    ggml_tensor* grid = ggml_view_4d(c, positions, channels_, side_, side_, 1, positions->nb[1],
                                     side_ * positions->nb[1], positions->nb[2], positions->nb[1]);
    grid = bilinear_resize(g, grid, width, height, false);
    positions = ggml_concat(c, first, ggml_reshape_2d(c, grid, channels_, width * height), 1);
  }
  ggml_tensor* tokens = ggml_reshape_3d(c, patches, channels_, width * height, batch);
  tokens = ggml_concat(c, ggml_repeat_4d(c, cls_token_, channels_, 1, batch, 1), tokens, 1);
  return ggml_add(c, tokens, positions);
}

/// tokens: ne = {C, 1 + patches, B}; returns {C, patches, B}, to which the class token added what the config says.
ggml_tensor* DPTForDepthEstimation::read_out(Graph& g, ggml_tensor* tokens, size_t level) const {
  ggml_context* c = g.context();
  const int64_t count = tokens->ne[1] - 1, batch = tokens->ne[2];
  const auto some = [&](int64_t first, int64_t n) {
    ggml_tensor* view =
        ggml_view_3d(c, tokens, channels_, n, batch, tokens->nb[1], tokens->nb[2], first * tokens->nb[1]);
    return ggml_cont(c, view);
  };
  ggml_tensor* patches = some(1, count);
  if (readout_type_ == "ignore") return patches;
  if (readout_type_ == "add") return ggml_add(c, patches, some(0, 1));
  ggml_tensor* both = ggml_concat(c, patches, ggml_repeat(c, some(0, 1), patches), 0);
  return activate(g, activation_, readout_projects_[level].forward(g, both));
}

/// features: one image per level, the largest first; returns one of twice the largest's size if each is twice the next.
ggml_tensor* DPTForDepthEstimation::fuse(Graph& g, const std::vector<ggml_tensor*>& features) const {
  ggml_tensor* x = nullptr;
  for (size_t i = 0; i < fusion_layers_.size(); ++i) {
    x = fusion_layers_[i].forward(g, x, features[features.size() - 1 - i]);
    g.tap("neck.fusion_stage.layers." + std::to_string(i), x, 4);
  }
  return x;
}

void DPTForDepthEstimation::build(const std::string&, Graph& g) const {
  ggml_context* c = g.context();
  ggml_tensor* patches = patch_projection_.forward(g, g.image_input("pixel_values"));
  const int64_t width = patches->ne[1], height = patches->ne[2], batch = patches->ne[3];
  ggml_tensor* tokens = embed(g, patches);
  std::vector<ggml_tensor*> features;
  for (size_t i = 0; i < layers_.size(); ++i) {
    tokens = layers_[i].forward(g, tokens, nullptr);
    g.tap("dpt.encoder.layer." + std::to_string(i), tokens, 3);
    const size_t level = features.size();
    if (out_indices_[level] != static_cast<int64_t>(i)) continue;
    ggml_tensor* image = ggml_reshape_4d(c, read_out(g, tokens, level), channels_, width, height, batch);
    image = reassemble_layers_[level].forward(g, image);
    g.tap("neck.reassemble_stage.layers." + std::to_string(level), image, 4);
    features.push_back(convs_[level].forward(g, image));
  }
  ggml_tensor* x = head_0_.forward(g, fuse(g, features));
  x = bilinear_resize(g, x, 2 * x->ne[1], 2 * x->ne[2], true);
  x = ggml_relu(c, head_2_.forward(g, x));
  x = ggml_relu(c, head_4_.forward(g, x));
  g.output("predicted_depth", ggml_reshape_3d(c, x, x->ne[1], x->ne[2], batch), 3);
}

}  // namespace

std::unique_ptr<Model> make_dpt(const Config& config, const Weights& w) {
  return std::make_unique<DPTForDepthEstimation>(config, w);
}

}  // namespace kandinsky
