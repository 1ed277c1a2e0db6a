// What holds for every network whatever its architecture: weight types, batches, threads, cancelling, wrong input.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "core/engine_info.h"
#include "test/check.h"
#include "test/fixture.h"

using namespace kandinsky;
using namespace kandinsky::test;

namespace {

constexpr const char* unet_trace = "unet22-t981-8x8";
constexpr const char* prior_trace = "prior-k22-t999";

std::unique_ptr<Network> load(const Component& component, const LoadOptions& options = {}) {
  return load_network(component.class_name, component.config, component.sources, options);
}

HostTensors recorded_inputs(const char* trace_name, std::initializer_list<const char*> names) {
  const Trace trace = read_trace(trace_name);
  HostTensors inputs;
  for (const char* name : names) inputs[name] = trace.tensor(std::string("input.") + name);
  inputs["timestep"].shape = {1};
  return inputs;
}

HostTensors unet_inputs() { return recorded_inputs(unet_trace, {"sample", "timestep", "image_embeds"}); }

HostTensors prior_inputs() {
  return recorded_inputs(
      prior_trace, {"hidden_states", "timestep", "proj_embedding", "encoder_hidden_states", "attention_mask"});
}

/// A batch of two samples of this size.
HostTensor waves(int64_t side) {
  HostTensor sample{{2, 4, side, side}, std::vector<float>(2 * 4 * side * side), {}, false};
  for (size_t i = 0; i < sample.f32.size(); ++i) sample.f32[i] = std::sin(0.7f * i);
  return sample;
}

Component unet_component() { return read_component(read_trace(unet_trace).checkpoint, "unet"); }

/// Sets the target of every matrix to `type`, or the nearest type that its row length allows; the rest stays float32.
void set_targets(std::vector<TensorSource>& sources, Type type) {
  for (TensorSource& source : sources) {
    if (source.shape.size() < 2) continue;
    const int64_t row = target_shape(source).back();
    for (const Type candidate : {type, Type::q8_0, Type::f16}) {
      if (row % block_size(candidate) != 0) continue;
      source.target = candidate;
      break;
    }
  }
}

/// Element `index` of a batch.
HostTensor slice(const HostTensor& batch, int64_t index) {
  HostTensor one = batch;
  one.shape[0] = 1;
  const size_t size = element_count(one.shape);
  one.f32.assign(batch.f32.begin() + index * size, batch.f32.begin() + (index + 1) * size);
  return one;
}

}  // namespace

/// The relative error of a recorded call's result with weights of `type`.
double error_with(Type type, const Trace& trace, const HostTensors& inputs, const char* output, const char* recorded) {
  Component component = read_component(trace.checkpoint, trace.component);
  set_targets(component.sources, type);
  return relative_error(load(component)->run("forward", inputs, {}).at(output), trace.tensor(recorded));
}

struct Bound {
  Type type;
  double error;  // twice what was measured, with activations in bfloat16; real networks average out more
};

TEST(unet_with_small_weights_stays_near_diffusers) {
  const Trace trace = read_trace(unet_trace);
  for (const Bound& bound : {Bound{Type::f16, 1e-2}, Bound{Type::bf16, 1e-2}, Bound{Type::q8_0, 3e-2},
                             Bound{Type::q5_0, 0.17}, Bound{Type::q4_0, 0.35}}) {
    const double error = error_with(bound.type, trace, unet_inputs(), "sample", "output.output");
    CHECK_MESSAGE(error < bound.error,
                  std::string(type_name(bound.type)) + ": relative error " + std::to_string(error));
  }
}

TEST(prior_with_small_weights_stays_near_diffusers) {
  const Trace trace = read_trace(prior_trace);
  for (const Bound& bound : {Bound{Type::f16, 1e-2}, Bound{Type::q8_0, 2e-2}, Bound{Type::q6_k, 6e-2},
                             Bound{Type::q5_k, 0.11}, Bound{Type::q4_k, 0.22}}) {
    const double error =
        error_with(bound.type, trace, prior_inputs(), "predicted_image_embedding", "output.predicted_image_embedding");
    CHECK_MESSAGE(error < bound.error,
                  std::string(type_name(bound.type)) + ": relative error " + std::to_string(error));
  }
}

TEST(calls_that_alternate_between_shapes_give_what_each_gives_alone) {
  for (const Packing packing : {Packing::compact, Packing::fast}) {
    LoadOptions options;
    options.packing = packing;
    const auto network = load(unet_component(), options);
    HostTensors inputs[2] = {unet_inputs(), unet_inputs()};
    inputs[0]["sample"] = waves(8);
    inputs[1]["sample"] = waves(16);
    HostTensor alone[2];
    for (int i = 0; i < 2; ++i) alone[i] = load(unet_component(), options)->run("forward", inputs[i], {}).at("sample");
    for (const int i : {0, 1, 0, 1, 1, 0}) {
      CHECK(network->run("forward", inputs[i], {}).at("sample").f32 == alone[i].f32);
    }
  }
}

TEST(packed_weights_give_the_same_results_whatever_size_comes_next) {
  LoadOptions options;
  options.packing = Packing::fast;
  const auto compact = load(unet_component()), fast = load(unet_component(), options);
  const uint64_t loaded = fast->weight_bytes();
  HostTensors inputs = unet_inputs();
  for (const int64_t side : {8, 64, 8}) {
    inputs["sample"] = waves(side);
    const HostTensor expected = compact->run("forward", inputs, {}).at("sample");
    const double difference = largest_difference(fast->run("forward", inputs, {}).at("sample"), expected);
    const double allowed = allowed_difference(expected, 1e-4 * largest_value(expected));
    CHECK_MESSAGE(difference <= allowed, std::to_string(side) + ": differs by " + std::to_string(difference));
  }
  CHECK(fast->weight_bytes() > loaded);
}

#ifndef _WIN32  // where a file of holes takes as much of the disk as any other
TEST(packing_that_needs_more_memory_than_there_is_is_refused_before_it_begins) {
  const Trace trace = read_trace(prior_trace);
  const Component tiny = read_component(trace.checkpoint, trace.component);
  // So many layers of a real width that they fit in memory as q4_0 but not packed.
  const int64_t width = 8192, layer_bytes = 2 * 12 * width * width;
  Metadata values = tiny.config.values();
  values["num_attention_heads"] = width / std::get<int64_t>(values.at("attention_head_dim"));
  values["num_layers"] = static_cast<int64_t>(list_devices()[0].total_bytes) / layer_bytes + 1;
  const Config config(trace.component, values);
  const std::string path = temporary_path("zeros.bin");
  std::vector<TensorSource> sources;
  uint64_t end = 0;
  for (const TensorSpec& spec : describe_network(tiny.class_name, config)) {
    TensorSource source;
    source.name = spec.name;
    source.path = path;
    source.offset = end;
    source.shape = spec.shape;
    source.type = source.target = spec.shape.size() == 2 && spec.shape[0] > 1 ? Type::q4_0 : Type::f32;
    source.bytes = tensor_bytes(source.type, source.shape);
    sources.push_back(source);
    end += (source.bytes + 31) / 32 * 32;
  }
  std::ofstream(path).close();
  std::filesystem::resize_file(path, end);

  LoadOptions options;
  options.packing = Packing::fast;
  const auto network = load_network(tiny.class_name, config, sources, options);
  CHECK_THROWS(out_of_memory, "for activations and packed weights but", network->run("forward", prior_inputs(), {}));
  CHECK(network->weight_bytes() <= end);  // nothing is packed
}
#endif

TEST(quantized_weights_take_less_memory) {
  Component component = unet_component();
  const uint64_t f32 = load(component)->weight_bytes();
  set_targets(component.sources, Type::q4_0);
  const uint64_t q4_0 = load(component)->weight_bytes();
  CHECK_MESSAGE(q4_0 * 4 < f32, std::to_string(q4_0) + " of " + std::to_string(f32) + " bytes");
}

TEST(each_element_of_a_batch_is_computed_on_its_own) {
  const auto network = load(unet_component());
  const HostTensors inputs = unet_inputs();
  const HostTensor both = network->run("forward", inputs, {}).at("sample");
  for (int64_t index = 0; index < 2; ++index) {
    HostTensors single = inputs;
    for (const char* name : {"sample", "image_embeds"}) single[name] = slice(inputs.at(name), index);
    const HostTensor one = network->run("forward", single, {}).at("sample");
    CHECK(largest_difference(one, slice(both, index)) < 1e-5);
  }
}

TEST(a_timestep_for_each_element_equals_one_for_all) {
  const auto network = load(unet_component());
  HostTensors inputs = unet_inputs();
  const HostTensor expected = network->run("forward", inputs, {}).at("sample");
  HostTensor& timestep = inputs["timestep"];
  timestep = {{2}, {981, 981}, {}, false};
  CHECK(largest_difference(network->run("forward", inputs, {}).at("sample"), expected) == 0);
}

TEST(results_do_not_depend_on_threads) {
  HostTensors inputs = unet_inputs();
  inputs["sample"] = waves(64);  // smaller ones run on one thread
  LoadOptions options;
  options.threads = 1;
  const HostTensor one = load(unet_component(), options)->run("forward", inputs, {}).at("sample");
  options.threads = 2;
  const HostTensor two = load(unet_component(), options)->run("forward", inputs, {}).at("sample");
  CHECK(largest_difference(one, two) == 0);
}

TEST(a_graph_serves_again_with_other_values_and_shapes) {
  const auto network = load(unet_component());
  const HostTensors inputs = unet_inputs();
  const HostTensor first = network->run("forward", inputs, {}).at("sample");
  HostTensors other = inputs;
  for (float& value : other["sample"].f32) value = -value;
  const HostTensor second = network->run("forward", other, {}).at("sample");
  CHECK(largest_difference(second, first) > 0.1);
  other["sample"] = slice(other["sample"], 0);
  other["image_embeds"] = slice(other["image_embeds"], 0);
  CHECK(largest_difference(network->run("forward", other, {}).at("sample"), slice(second, 0)) < 1e-5);
  CHECK(largest_difference(network->run("forward", inputs, {}).at("sample"), first) == 0);
  CHECK(network->compute_bytes() > 0);
}

TEST(networks_run_side_by_side) {
  const HostTensor expected = load(unet_component())->run("forward", unet_inputs(), {}).at("sample");
  std::vector<double> differences(4, -1);
  std::vector<std::thread> threads;
  for (double& difference : differences) {
    threads.emplace_back([&difference, &expected] {
      difference = largest_difference(load(unet_component())->run("forward", unet_inputs(), {}).at("sample"), expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const double difference : differences) CHECK(difference >= 0 && difference < 1e-5);
}

TEST(a_cancelled_load_throws_aborted) {
  const std::atomic<bool> cancel{true};
  LoadOptions options;
  options.cancel = &cancel;
  CHECK_THROWS(aborted, "", load(unet_component(), options));
}

TEST(a_cancelled_run_throws_aborted_and_the_network_stays_usable) {
  const auto network = load(unet_component());
  std::atomic<bool> cancel{true};
  RunOptions options;
  options.cancel = &cancel;
  CHECK_THROWS(aborted, "", network->run("forward", unet_inputs(), options));
  cancel = false;
  CHECK(network->run("forward", unet_inputs(), options).at("sample").shape == std::vector<int64_t>({2, 8, 8, 8}));
}

TEST(a_run_can_be_cancelled_in_the_middle) {
  const auto network = load(unet_component());
  HostTensors inputs = unet_inputs();
  // Large enough to take far longer than the wait.
  inputs["sample"] = {{2, 4, 256, 256}, std::vector<float>(2 * 4 * 256 * 256, 0.5f), {}, false};
  const CancelLater cancel;
  RunOptions options;
  options.cancel = cancel.flag();
  CHECK_THROWS(aborted, "cancelled", network->run("forward", inputs, options));
}

TEST(progress_ends_with_every_byte_loaded) {
  std::vector<std::pair<uint64_t, uint64_t>> steps;
  LoadOptions options;
  options.progress = [&](uint64_t done, uint64_t total) { steps.emplace_back(done, total); };
  const auto network = load(unet_component(), options);
  CHECK(steps.size() > 1);
  CHECK(steps.back().first == network->weight_bytes() && steps.back().second == network->weight_bytes());
  for (size_t i = 1; i < steps.size(); ++i) CHECK(steps[i].first >= steps[i - 1].first);
}

TEST(wrong_inputs_are_refused_with_a_reason) {
  const auto unet = load(unet_component());
  const auto run = [&](const std::function<void(HostTensors&)>& change, const std::string& method = "forward") {
    HostTensors inputs = unet_inputs();
    change(inputs);
    unet->run(method, inputs, {});
  };
  CHECK_THROWS(invalid_argument, "expected one of the methods forward but received \"decode\"",
               run([](HostTensors&) {}, "decode"));
  CHECK_THROWS(invalid_argument, "expected an input \"timestep\"", run([](HostTensors& in) { in.erase("timestep"); }));
  CHECK_THROWS(invalid_argument, "there is no input \"hint\"", run([](HostTensors& in) { in["hint"] = in["sample"]; }));
  CHECK_THROWS(shape_mismatch, "expected shape [*, 4, *, *] for sample but received [2, 4, 64]",
               run([](HostTensors& in) { in["sample"].shape = {2, 4, 64}; }));
  CHECK_THROWS(shape_mismatch, "expected multiples of 8 for height and width of sample but received 4 x 16",
               run([](HostTensors& in) { in["sample"].shape = {2, 4, 4, 16}; }));
  CHECK_THROWS(shape_mismatch, "has shape [2, 4, 16, 16] but 512 values",
               run([](HostTensors& in) { in["sample"].shape = {2, 4, 16, 16}; }));
  CHECK_THROWS(shape_mismatch, "for timestep", run([](HostTensors& in) {
                 in["timestep"] = {{3}, {1, 2, 3}, {}, false};
               }));
  CHECK_THROWS(invalid_argument, "expected float32 values for sample", run([](HostTensors& in) {
                 in["sample"].is_int = true;
                 in["sample"].i32.resize(in["sample"].f32.size());
               }));
  RunOptions options;
  options.taps = {"down_blocks.9"};
  CHECK_THROWS(invalid_argument, "\"down_blocks.9\"", unet->run("forward", unet_inputs(), options));
}

TEST(token_ids_must_be_in_the_vocabulary) {
  const auto encoder = load(read_component("kandinsky-2-2-prior", "text_encoder"));
  for (const int32_t id : {-1, 1214}) {
    CHECK_THROWS(invalid_argument, "expected token ids from 0 to 1213",
                 encoder->run("forward", {{"input_ids", {{1, 2}, {}, {0, id}, true}}}, {}));
  }
  CHECK_THROWS(shape_mismatch, "expected at most 77 tokens",
               encoder->run("forward", {{"input_ids", {{1, 78}, {}, std::vector<int32_t>(78), true}}}, {}));
}

TEST(movq_decodes_any_latent_size_and_refuses_tiny_images) {
  const auto movq = load(read_component("kandinsky-2-2-decoder", "movq"));
  const HostTensor latents{{1, 4, 3, 5}, std::vector<float>(60, 0.3f), {}, false};
  CHECK(movq->run("decode", {{"latents", latents}}, {}).at("sample").shape == std::vector<int64_t>({1, 3, 24, 40}));
  const HostTensor image{{1, 3, 21, 34}, std::vector<float>(3 * 21 * 34, 0.3f), {}, false};
  CHECK(movq->run("encode", {{"sample", image}}, {}).at("latents").shape == std::vector<int64_t>({1, 4, 2, 4}));
  const HostTensor tiny{{1, 3, 4, 8}, std::vector<float>(96), {}, false};
  CHECK_THROWS(shape_mismatch, "expected at least 8", movq->run("encode", {{"sample", tiny}}, {}));
}

TEST(absent_weights_and_wrong_shapes_are_named) {
  Component component = unet_component();
  const auto find = [&](const std::string& name) {
    return std::find_if(component.sources.begin(), component.sources.end(),
                        [&](const TensorSource& source) { return source.name == name; });
  };
  const std::string name = "down_blocks.0.resnets.0.conv1.weight";
  find(name)->shape = {64, 16, 3, 3};
  CHECK_THROWS(shape_mismatch, "unet: " + name + ": expected [32, 32, 3, 3], file has [64, 16, 3, 3]", load(component));
  component.sources.erase(find(name));
  CHECK_THROWS(bad_file, "unet: " + name + " is missing", load(component));
}

TEST(config_values_that_are_not_implemented_are_named) {
  const Component component = unet_component();
  const auto load_with = [&](const std::string& key, const Value& value) {
    Metadata values = component.config.values();
    values[key] = value;
    load_network(component.class_name, Config("unet", values), component.sources, {});
  };
  CHECK_THROWS(unsupported_model, "act_fn", load_with("act_fn", std::string("gelu")));
  CHECK_THROWS(unsupported_model, "mid_block_type", load_with("mid_block_type", std::string("UNetMidBlock2D")));
  CHECK_THROWS(unsupported_model, "CrossAttnDownBlock2D",
               load_with("down_block_types", std::vector<std::string>(4, "CrossAttnDownBlock2D")));
  CHECK_THROWS(unsupported_model, "expected 4 values for up_block_types but received 1",
               load_with("up_block_types", std::vector<std::string>{"ResnetUpsampleBlock2D"}));
  CHECK_THROWS(unsupported_model, "addition_embed_type", load_with("addition_embed_type", std::string("text_time")));
  CHECK_THROWS(unsupported_model, "class_embed_type", load_with("class_embed_type", std::string("timestep")));
  CHECK_THROWS(unsupported_model, "block_out_channels", load_with("block_out_channels", std::vector<int64_t>{-1}));
  CHECK_THROWS(unsupported_model, "UNet3D", load_network("UNet3D", component.config, component.sources, {}));
}

TEST(describe_network_lists_what_the_checkpoint_holds) {
  const std::pair<const char*, const char*> components[] = {{"kandinsky-2-2-decoder", "unet"},
                                                            {"kandinsky-2-2-controlnet-depth", "unet"},
                                                            {"kandinsky-2-2-decoder", "movq"},
                                                            {"kandinsky-2-2-prior", "prior"},
                                                            {"kandinsky-2-2-prior", "text_encoder"},
                                                            {"kandinsky-2-2-prior", "image_encoder"}};
  for (const auto& [checkpoint, name] : components) {
    const Component component = read_component(checkpoint, name);
    std::map<std::string, std::vector<int64_t>> stored;
    for (const TensorSource& source : component.sources) stored[source.name] = source.shape;
    stored.erase("quantize.embedding.weight");  // the codebook, which no pipeline uses
    size_t found = 0;
    for (const TensorSpec& spec : describe_network(component.class_name, component.config)) {
      CHECK_MESSAGE(stored[spec.name] == spec.shape, std::string(name) + ": " + spec.name);
      ++found;
    }
    CHECK_MESSAGE(found == stored.size(), std::string(name) + ": " + std::to_string(found) + " of " +
                                              std::to_string(stored.size()) + " tensors");
  }
}

TEST(unknown_devices_are_refused_with_the_list_of_known_ones) {
  LoadOptions options;
  options.device = "cuda:99";
  CHECK_THROWS(device_unavailable, "available devices (cpu", load(unet_component(), options));
  const std::vector<DeviceInfo> devices = list_devices();
  CHECK(!devices.empty() && devices[0].kind == "cpu" && devices[0].total_bytes > 0);
}
