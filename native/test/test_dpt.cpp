// DPT against calls of transformers recorded with tiny checkpoints (scripts/reference/depth_cases.py).
#include <algorithm>

#include "test/check.h"
#include "test/fixture.h"

using namespace kandinsky;
using namespace kandinsky::test;

namespace {

Component read_dpt(const std::string& checkpoint) {
  return read_network_folder(fixtures() + "depth/" + checkpoint + "/", "depth_estimator");
}

std::unique_ptr<Network> load(const Component& component) {
  LoadOptions options;
  options.threads = 1;
  options.device = device();
  return load_network(component.class_name, component.config, component.sources, options);
}

HostTensors recorded() {
  HostTensors tensors;
  for (const TensorSource& source : safetensors_sources(fixtures() + "depth/networks.safetensors")) {
    tensors[source.name] = read_host_tensor(source);
  }
  return tensors;
}

/// Runs one recorded call and compares everything that was recorded of it.
void check_call(const std::string& checkpoint, const std::string& call, double tolerance) {
  const HostTensors tensors = recorded();
  const std::string prefix = checkpoint + "/" + call + "/";
  RunOptions options;
  for (const auto& [name, tensor] : tensors) {
    const bool is_tap = name.rfind(prefix, 0) == 0 && name != prefix + "predicted_depth";
    if (is_tap) options.taps.push_back(name.substr(prefix.size()));
  }
  const HostTensors inputs{{"pixel_values", tensors.at(call + "/pixel_values")}};
  for (const auto& [name, tensor] : load(read_dpt(checkpoint))->run("forward", inputs, options)) {
    const HostTensor& expected = tensors.at(prefix + name);
    const double difference = largest_difference(tensor, expected);
    const double allowed = allowed_difference(expected, tolerance * largest_value(expected));
    CHECK_MESSAGE(difference <= allowed, prefix + name + " " + shape_text(tensor.shape) + " differs by " +
                                             std::to_string(difference) + ", allowed is " + std::to_string(allowed));
  }
}

void check_refused(const std::string& key, const Value& value) {
  const Component component = read_dpt("dpt");
  Metadata values = component.config.values();
  values[key] = value;
  CHECK_THROWS(unsupported_model, key, describe_network(component.class_name, Config("depth_estimator", values)));
}

}  // namespace

TEST(dpt_matches_transformers) {
  for (const char* checkpoint : {"dpt", "dpt-add", "dpt-ignore"}) check_call(checkpoint, "own-size", 1e-4);
}

TEST(dpt_matches_transformers_where_levels_do_not_double_in_size) {
  for (const char* checkpoint : {"dpt", "dpt-add", "dpt-ignore"}) check_call(checkpoint, "odd-grid", 1e-4);
}

TEST(dpt_matches_transformers_for_a_picture_that_is_not_square) {
  for (const char* checkpoint : {"dpt", "dpt-add", "dpt-ignore"}) check_call(checkpoint, "wide", 1e-4);
}

TEST(dpt_with_small_weights_stays_near_transformers) {
  Component component = read_dpt("dpt");
  for (TensorSource& source : component.sources) {
    source.transposed = source.name.find("resize.weight") != std::string::npos && source.shape[0] == source.shape[1] &&
                        source.name.find("layers.3") == std::string::npos;
    if (source.shape.size() >= 2 && target_shape(source).back() % 32 == 0) source.target = Type::q8_0;
  }
  const HostTensors tensors = recorded();
  const HostTensors inputs{{"pixel_values", tensors.at("own-size/pixel_values")}};
  const HostTensor depth = load(component)->run("forward", inputs, {}).at("predicted_depth");
  const double error = relative_error(depth, tensors.at("dpt/own-size/predicted_depth"));
  CHECK_MESSAGE(error < 0.05, "relative error " + std::to_string(error));
}

TEST(dpt_refuses_configs_of_other_kinds_by_name) {
  check_refused("is_hybrid", true);
  check_refused("backbone", std::string("facebook/dinov2-base"));
  check_refused("qkv_bias", false);
  check_refused("use_batch_norm_in_fusion_residual", true);
  check_refused("add_projection", true);
  check_refused("head_in_index", int64_t{0});
  check_refused("readout_type", std::string("attend"));
  check_refused("hidden_act", std::string("relu"));
  check_refused("backbone_out_indices", std::vector<int64_t>{0, 1, 3, 5});
  check_refused("backbone_out_indices", std::vector<int64_t>{3, 1});
  check_refused("backbone_out_indices", std::vector<int64_t>{});
  check_refused("reassemble_factors", std::vector<double>{4, 2, 1});
  check_refused("reassemble_factors", std::vector<double>{4, 1.5, 1, 0.5});
  check_refused("reassemble_factors", std::vector<double>{4, 2, 1, 0});
  check_refused("neck_hidden_sizes", std::vector<int64_t>{8, 16, 24});
  check_refused("patch_size", int64_t{65});
  check_refused("image_size", std::vector<int64_t>{64, 64});
  Metadata values = read_dpt("dpt").config.values();
  values.erase("backbone_out_indices");
  CHECK_THROWS(unsupported_model, "backbone_out_indices",
               describe_network("DPTForDepthEstimation", Config("depth_estimator", values)));
}

TEST(dpt_refuses_pictures_smaller_than_a_patch) {
  const HostTensor pixels{{1, 3, 15, 64}, std::vector<float>(3 * 15 * 64), {}, false};
  CHECK_THROWS(shape_mismatch, "16 x 16", load(read_dpt("dpt"))->run("forward", {{"pixel_values", pixels}}, {}));
}
