// Every network against calls of diffusers and transformers recorded with the tiny checkpoints.
#include <thread>

#include "test/check.h"
#include "test/fixture.h"

using namespace kandinsky;
using namespace kandinsky::test;

namespace {

std::unique_ptr<Network> load(const Component& component, LoadOptions options = {}) {
  options.device = device();
  return load_network(component.class_name, component.config, component.sources, options);
}

void check_close(const Trace& trace, const std::string& what, const HostTensor& actual, const HostTensor& expected,
                 double tolerance) {
  const double difference = largest_difference(actual, expected);
  tolerance = allowed_difference(expected, tolerance);
  CHECK_MESSAGE(difference <= tolerance,
                trace.name + ": " + what + " " + shape_text(actual.shape) + " differs by " +
                    std::to_string(difference) + ", allowed is " + std::to_string(tolerance));
}

/// The intermediate tensors that were recorded and that the network can return.
std::vector<std::string> recorded_blocks(const Trace& trace) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : trace.tensors) {
    const std::string prefix = "block.";
    // The network fuses this one with the activation that follows.
    if (name.rfind(prefix, 0) == 0 && name != "block.conv_norm_out") names.push_back(name.substr(prefix.size()));
  }
  return names;
}

void check_blocks(const Trace& trace, const HostTensors& results, const std::vector<std::string>& names,
                  double tolerance) {
  for (const std::string& name : names) {
    const HostTensor& expected = trace.tensor("block." + name);
    check_close(trace, name, results.at(name), expected, std::max(1e-4 * largest_value(expected), tolerance));
  }
}

/// The recorded inputs of a call by their own names; a scalar timestep becomes a list of one.
HostTensors recorded_inputs(const Trace& trace) {
  HostTensors inputs;
  for (const auto& [name, tensor] : trace.tensors) {
    if (name.rfind("input.", 0) == 0) inputs[name.substr(6)] = tensor;
  }
  if (inputs.count("timestep") && inputs["timestep"].shape.empty()) inputs["timestep"].shape = {1};
  return inputs;
}

/// One row of a batch, as a batch of one.
HostTensor row_of(const HostTensor& batch, int64_t index) {
  HostTensor row{batch.shape, {}, {}, false};
  row.shape[0] = 1;
  const int64_t size = element_count(row.shape);
  row.f32.assign(batch.f32.begin() + index * size, batch.f32.begin() + (index + 1) * size);
  return row;
}

/// The recorded inputs of one row of a batch.
HostTensors sample_of(const Trace& trace, int64_t index) {
  HostTensors sample;
  for (const auto& [name, tensor] : recorded_inputs(trace)) sample[name] = row_of(tensor, index);
  return sample;
}

/// uint8 [B, H, W, 3] to float32 [B, 3, H, W]: value * scale[c] + shift[c].
HostTensor image_planes(const HostTensor& bytes, const float (&scale)[3], const float (&shift)[3]) {
  const int64_t batch = bytes.shape[0], pixels = bytes.shape[1] * bytes.shape[2];
  HostTensor image;
  image.shape = {batch, 3, bytes.shape[1], bytes.shape[2]};
  for (int64_t b = 0; b < batch; ++b) {
    for (int c = 0; c < 3; ++c) {
      for (int64_t i = 0; i < pixels; ++i) {
        image.f32.push_back(static_cast<float>(bytes.i32[(b * pixels + i) * 3 + c]) * scale[c] + shift[c]);
      }
    }
  }
  return image;
}

HostTensor signed_image(const HostTensor& bytes) {
  constexpr float s = 1 / 127.5f;
  return image_planes(bytes, {s, s, s}, {-1, -1, -1});
}

/// CLIP's image processor after resizing.
HostTensor clip_image(const HostTensor& bytes) {
  constexpr double mean[] = {0.48145466, 0.4578275, 0.40821073}, std[] = {0.26862954, 0.26130258, 0.27577711};
  float scale[3], shift[3];
  for (int c = 0; c < 3; ++c) {
    scale[c] = static_cast<float>(1 / (255 * std[c]));
    shift[c] = static_cast<float>(-mean[c] / std[c]);
  }
  return image_planes(bytes, scale, shift);
}

}  // namespace

TEST(unet_matches_diffusers) {
  for (const std::string& name : trace_names("unet2")) {
    const Trace trace = read_trace(name);
    RunOptions options;
    options.taps = recorded_blocks(trace);
    const HostTensors results =
        load(read_component(trace.checkpoint, trace.component))->run("forward", recorded_inputs(trace), options);
    check_blocks(trace, results, options.taps, trace.tolerance("output"));
    check_close(trace, "sample", results.at("sample"), trace.tensor("output.output"), trace.tolerance("output"));
  }
}

TEST(kandinsky3_unet_matches_diffusers) {
  for (const std::string& name : trace_names("unet3")) {
    const Trace trace = read_trace(name);
    const auto network = load(read_component(trace.checkpoint, trace.component));
    const HostTensors results = network->run("forward", recorded_inputs(trace), {});
    check_close(trace, "sample", results.at("sample"), trace.tensor("output.output"), trace.tolerance("output"));
  }
}

TEST(t5_matches_transformers) {
  const Trace trace = read_trace("t5");
  const auto network = load(read_component(trace.checkpoint, trace.component));
  const HostTensors inputs = recorded_inputs(trace);
  const HostTensor results = network->run("forward", inputs, {}).at("last_hidden_state");
  check_close(trace, "last_hidden_state", results, trace.tensor("output.last_hidden_state"),
              trace.tolerance("last_hidden_state"));
}

TEST(prior_matches_diffusers) {
  for (const std::string& name : trace_names("prior-")) {
    const Trace trace = read_trace(name);
    const auto network = load(read_component(trace.checkpoint, trace.component));
    RunOptions options;
    options.taps = recorded_blocks(trace);
    const HostTensors results = network->run("forward", recorded_inputs(trace), options);
    check_blocks(trace, results, options.taps, trace.tolerance("predicted_image_embedding"));
    const HostTensor& embedding = results.at("predicted_image_embedding");
    check_close(trace, "predicted_image_embedding", embedding, trace.tensor("output.predicted_image_embedding"),
                trace.tolerance("predicted_image_embedding"));
    const HostTensors processed =
        network->run("post_process", {{"latents", trace.tensor("input.hidden_states")}}, {});
    check_close(trace, "image_embeds", processed.at("image_embeds"), trace.tensor("output.post_processed"),
                trace.tolerance("post_processed"));
  }
}

TEST(clip_text_matches_transformers) {
  for (const std::string& name : trace_names("clip-text-")) {
    const Trace trace = read_trace(name);
    const auto network = load(read_component(trace.checkpoint, trace.component));
    const HostTensors results = network->run("forward", {{"input_ids", trace.tensor("input.input_ids")}}, {});
    for (const char* output : {"last_hidden_state", "text_embeds"}) {
      check_close(trace, output, results.at(output), trace.tensor(std::string("output.") + output),
                  trace.tolerance(output));
    }
  }
}

TEST(clip_vision_matches_transformers) {
  for (const std::string& name : trace_names("clip-vision-")) {
    const Trace trace = read_trace(name);
    const Component component = read_component(trace.checkpoint, trace.component);
    const int64_t size = component.config.integer("image_size");
    // The zero image is fed as zeros, not as a black picture.
    HostTensor pixels{{1, 3, size, size}, std::vector<float>(3 * size * size), {}, false};
    if (trace.tensors.count("input.pixels_uint8")) pixels = clip_image(trace.tensor("input.pixels_uint8"));
    const HostTensors results = load(component)->run("forward", {{"pixel_values", pixels}}, {});
    check_close(trace, "image_embeds", results.at("image_embeds"), trace.tensor("output.image_embeds"),
                trace.tolerance("image_embeds"));
  }
}

TEST(movq_matches_diffusers) {
  for (const std::string& name : trace_names("movq")) {
    const Trace trace = read_trace(name);
    const auto network = load(read_component(trace.checkpoint, trace.component));
    RunOptions encoder, decoder;
    for (const std::string& block : recorded_blocks(trace)) {
      (block.rfind("encoder.", 0) == 0 ? encoder : decoder).taps.push_back(block);
    }
    const HostTensor sample = signed_image(trace.tensor("input.image_uint8"));
    const HostTensors encoded = network->run("encode", {{"sample", sample}}, encoder);
    check_blocks(trace, encoded, encoder.taps, trace.tolerance("latents"));
    check_close(trace, "latents", encoded.at("latents"), trace.tensor("output.latents"), trace.tolerance("latents"));

    const HostTensors decoded = network->run("decode", {{"latents", trace.tensor("output.latents")}}, {});
    check_close(trace, "sample", decoded.at("sample"), trace.tensor("output.decoded"), trace.tolerance("decoded"));

    // The decoder's blocks were recorded with latents that had passed the codebook.
    const HostTensors quantized = network->run("decode", {{"latents", trace.tensor("output.quantized")}}, decoder);
    check_blocks(trace, quantized, decoder.taps, trace.tolerance("decoded_quantized"));
    check_close(trace, "sample of quantized latents", quantized.at("sample"), trace.tensor("output.decoded_quantized"),
                trace.tolerance("decoded_quantized"));
  }
}

TEST(kandinsky5_transformer_matches_diffusers) {
  for (const std::string& name : trace_names("k5-transformer-")) {
    const Trace trace = read_trace(name);
    const auto network = load(read_component(trace.checkpoint, trace.component));
    const HostTensors inputs = recorded_inputs(trace);
    const HostTensor& expected = trace.tensor("output.output");
    HostTensor velocity{expected.shape, {}, {}, false};
    for (int64_t i = 0; i < expected.shape[0]; ++i) {
      HostTensors sample = sample_of(trace, i);
      const auto& scale = trace.description["scale_factor"].items;
      for (const Json& axis : scale) sample["scale_factor"].f32.push_back(static_cast<float>(axis.number));
      sample["scale_factor"].shape = {3};
      RunOptions options;
      for (const char* block : {"time_embeddings", "pooled_text_embeddings", "text_embeddings"}) {
        if (trace.tensors.count(std::string("block.") + block)) options.taps.push_back(block);
      }
      const HostTensors results = network->run("forward", sample, options);
      for (const std::string& block : options.taps) {
        check_close(trace, block, results.at(block), row_of(trace.tensor("block." + block), i), 1e-4);
      }
      const HostTensor& one = results.at("velocity");
      velocity.f32.insert(velocity.f32.end(), one.f32.begin(), one.f32.end());
    }
    // One rotated query or key that is rounded to the other side moves the result by 1e-4; without rounding it differs by
    // up to 2e-3.
    check_close(trace, "velocity", velocity, expected, 1e-3);
  }
}

TEST(qwen_text_matches_transformers) {
  for (const std::string& name : trace_names("qwen-text-")) {
    const Trace trace = read_trace(name);
    const auto network = load(read_component(trace.checkpoint, trace.component));
    const HostTensors results = network->run("forward", {{"input_ids", trace.tensor("input.input_ids")}}, {});
    const HostTensor& states = trace.tensor("output.last_hidden_state");
    // In float32 on every processor, unless KANDINSKY_CPU or the device says otherwise.
    check_close(trace, "last_hidden_state", results.at("last_hidden_state"), states, trace.tolerance("last_hidden_state"));
  }
}

TEST(qwen_vision_matches_transformers) {
  for (const std::string& name : trace_names("qwen-vision-")) {
    const Trace trace = read_trace(name);
    RunOptions options;
    options.taps = recorded_blocks(trace);
    const auto network = load(read_component(trace.checkpoint, trace.component));
    HostTensors results = network->run("get_image_features", recorded_inputs(trace), options);
    check_blocks(trace, results, options.taps, trace.tolerance("features"));
    HostTensor& features = results.at("image_features");
    features.shape.erase(features.shape.begin());
    check_close(trace, "features", features, trace.tensor("output.features"), trace.tolerance("features"));
  }
}

TEST(qwen_reads_texts_with_a_picture_as_transformers_does) {
  for (const std::string& name : trace_names("qwen-image-")) {
    const Trace trace = read_trace(name);
    const auto network = load(read_component(trace.checkpoint, trace.component));
    const HostTensor& grid = trace.tensor("input.image_grid_thw");
    const HostTensors features = network->run(
        "get_image_features", {{"pixel_values", trace.tensor("input.pixel_values")}, {"image_grid_thw", grid}}, {});
    const HostTensors results = network->run("forward",
                                             {{"input_ids", trace.tensor("input.input_ids")},
                                              {"attention_mask", trace.tensor("input.attention_mask")},
                                              {"image_features", features.at("image_features")},
                                              {"image_grid_thw", grid}},
                                             {});
    check_close(trace, "last_hidden_state", results.at("last_hidden_state"), trace.tensor("output.last_hidden_state"),
                trace.tolerance("last_hidden_state"));
  }
}

TEST(qwen_refuses_pictures_that_do_not_fit) {
  const Trace trace = read_trace("qwen-image-i2i-1");
  const auto network = load(read_component(trace.checkpoint, trace.component));
  const HostTensor& pixels = trace.tensor("input.pixel_values");
  const HostTensor& ids = trace.tensor("input.input_ids");
  const auto grid = [](std::vector<int32_t> values) { return HostTensor{{1, 3}, {}, std::move(values), true}; };
  for (const auto& values : {std::vector<int32_t>{1, 3, 8}, {2, 4, 6}, {1, -4, -6}, {1, 0, 0}, {1, 1 << 30, 1 << 30}}) {
    CHECK_THROWS(shape_mismatch, "pixel_values",
                 network->run("get_image_features", {{"pixel_values", pixels}, {"image_grid_thw", grid(values)}}, {}));
  }
  const HostTensor three{{1, 3, 48}, std::vector<float>(3 * 48), {}, false};
  CHECK_THROWS(shape_mismatch, "in a row",
               network->run("forward", {{"input_ids", ids}, {"image_features", three}, {"image_grid_thw", grid({1, 2, 6})}}, {}));
}

TEST(clip_pooled_matches_transformers) {
  for (const std::string& name : trace_names("clip-pooled-")) {
    const Trace trace = read_trace(name);
    Component component = read_component(trace.checkpoint, trace.component);
    component.class_name = "CLIPTextModel";  // its config.json may be a whole CLIP's
    const HostTensors results = load(component)->run("forward", {{"input_ids", trace.tensor("input.input_ids")}}, {});
    // The reference masks the padding behind the text here, which the pooled token does not see.
    check_close(trace, "pooled", results.at("pooler_output"), trace.tensor("output.pooled"), trace.tolerance("pooled"));
  }
}

TEST(autoencoder_kl_matches_diffusers) {
  for (const std::string& name : trace_names("k5-vae-")) {
    const Trace trace = read_trace(name);
    const Component component = read_component(trace.checkpoint, trace.component);
    RunOptions options;
    options.taps = recorded_blocks(trace);
    if (trace.tensors.count("output.moments")) {
      const HostTensor sample = signed_image(trace.tensor("input.image_uint8"));
      const HostTensors results = load(component)->run("encode", {{"sample", sample}}, options);
      check_blocks(trace, results, options.taps, trace.tolerance("moments"));
      check_close(trace, "moments", results.at("moments"), trace.tensor("output.moments"), trace.tolerance("moments"));
    } else {
      HostTensor latents = trace.tensor("input.latents");
      const auto scale = static_cast<float>(component.config.real("scaling_factor", 1));
      for (float& value : latents.f32) value /= scale;
      const HostTensors results = load(component)->run("decode", {{"latents", latents}}, options);
      check_blocks(trace, results, options.taps, trace.tolerance("decoded"));
      check_close(trace, "sample", results.at("sample"), trace.tensor("output.decoded"), trace.tolerance("decoded"));
    }
  }
}
