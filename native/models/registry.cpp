// The only list of networks.
#include <map>

#include "core/error.h"
#include "models/loaded_network.h"

namespace kandinsky {

// Class names of diffusers and transformers, and what makes the network: each in a file of its own.
#define KANDINSKY_NETWORKS(network)                                  \
  network(AutoencoderKL, make_autoencoder_kl)                        \
  network(CLIPTextModel, make_clip_text_model)                       \
  network(CLIPTextModelWithProjection, make_clip_text)               \
  network(CLIPVisionModelWithProjection, make_clip_vision)           \
  network(DPTForDepthEstimation, make_dpt)                           \
  network(Kandinsky3UNet, make_kandinsky3_unet)                      \
  network(Kandinsky5Transformer3DModel, make_kandinsky5_transformer) \
  network(MultilingualCLIP, make_multilingual_clip)                  \
  network(PriorTransformer, make_prior_transformer)                  \
  network(Qwen2_5_VLForConditionalGeneration, make_qwen2_5_vl)       \
  network(T5EncoderModel, make_t5_encoder)                           \
  network(UNet2DConditionModel, make_unet_2d_condition)              \
  network(VQModel, make_movq)

#define DECLARE(name, make) std::unique_ptr<Model> make(const Config& config, const Weights& w);
KANDINSKY_NETWORKS(DECLARE)

namespace {

#define ENTRY(name, make) {#name, make},
const std::map<std::string, ModelFactory>& factories() {
  static const std::map<std::string, ModelFactory> list{KANDINSKY_NETWORKS(ENTRY)};
  return list;
}

ModelFactory factory_of(const std::string& class_name) {
  const auto found = factories().find(class_name);
  if (found != factories().end()) return found->second;
  std::string known;
  for (const auto& [name, factory] : factories()) known += (known.empty() ? "" : ", ") + name;
  fail(ErrorCode::unsupported_model, "Expected one of {} for the network's class but received \"{}\"", known,
       class_name);
}

}  // namespace

std::vector<std::string> network_classes() {
  std::vector<std::string> names;
  for (const auto& [name, factory] : factories()) names.push_back(name);
  return names;
}

std::unique_ptr<Network> load_network(const std::string& class_name, const Config& config,
                                      const std::vector<TensorSource>& sources, const LoadOptions& options) {
  return load_model(factory_of(class_name), config, sources, options);
}

std::vector<TensorSpec> describe_network(const std::string& class_name, const Config& config,
                                         const std::set<std::string>* stored) {
  WeightStore store(config.component(), stored);
  factory_of(class_name)(config, store.root());
  return store.specs();
}

}  // namespace kandinsky
