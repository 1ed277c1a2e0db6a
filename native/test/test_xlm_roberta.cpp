// MultilingualCLIP against a recorded call of diffusers with the tiny checkpoint.
#include <algorithm>

#include "test/check.h"
#include "test/fixture.h"

using namespace kandinsky;
using namespace kandinsky::test;

namespace {

std::unique_ptr<Network> load(const Trace& trace) {
  const Component component = read_component(trace.checkpoint, trace.component);
  LoadOptions options;
  options.device = device();
  return load_network(component.class_name, component.config, component.sources, options);
}

HostTensors recorded_inputs(const Trace& trace) {
  return {{"input_ids", trace.tensor("input.input_ids")}, {"attention_mask", trace.tensor("input.attention_mask")}};
}

void check_close(const std::string& what, const HostTensor& actual, const HostTensor& expected, double tolerance) {
  const double difference = largest_difference(actual, expected);
  tolerance = allowed_difference(expected, tolerance);
  CHECK_MESSAGE(difference <= tolerance, what + " " + shape_text(actual.shape) + " differs by " +
                                             std::to_string(difference) + ", allowed is " + std::to_string(tolerance));
}

}  // namespace

TEST(multilingual_clip_matches_diffusers) {
  const Trace trace = read_trace("mclip");
  const HostTensors results = load(trace)->run("forward", recorded_inputs(trace), {});
  for (const char* output : {"last_hidden_state", "text_embeds"}) {
    check_close(output, results.at(output), trace.tensor(std::string("output.") + output), trace.tolerance(output));
  }
}

TEST(multilingual_clip_attends_to_what_the_mask_shows) {
  const Trace trace = read_trace("mclip");
  const auto network = load(trace);
  HostTensors inputs = recorded_inputs(trace);
  const HostTensor expected = network->run("forward", inputs, {}).at("text_embeds");
  HostTensor& mask = inputs.at("attention_mask");
  std::fill(mask.i32.begin(), mask.i32.end(), 1);
  const HostTensor unmasked = network->run("forward", inputs, {}).at("text_embeds");
  CHECK(largest_difference(unmasked, expected) > 1e-3);
}

TEST(multilingual_clip_refuses_wrong_inputs) {
  const Trace trace = read_trace("mclip");
  const auto network = load(trace);
  const HostTensors right = recorded_inputs(trace);

  HostTensors inputs = right;
  inputs.at("input_ids").i32[3] = 2002;
  CHECK_THROWS(invalid_argument, "from 0 to 2001 in input_ids but received 2002", network->run("forward", inputs, {}));

  inputs = right;
  inputs.at("attention_mask").i32[0] = 2;
  CHECK_THROWS(invalid_argument, "0 or 1 in attention_mask", network->run("forward", inputs, {}));

  inputs = right;
  std::fill_n(inputs.at("attention_mask").i32.begin(), 77, 0);
  CHECK_THROWS(invalid_argument, "row 0 has none", network->run("forward", inputs, {}));
}

TEST(multilingual_clip_takes_rows_as_long_as_its_positions) {
  const auto network = load(read_trace("mclip"));
  const auto run = [&](int64_t length) {
    const HostTensor ids{{1, length}, {}, std::vector<int32_t>(length, 5), true};
    const HostTensor mask{{1, length}, {}, std::vector<int32_t>(length, 1), true};
    return network->run("forward", {{"input_ids", ids}, {"attention_mask", mask}}, {});
  };
  CHECK(run(512).at("text_embeds").shape == std::vector<int64_t>({1, 64}));
  CHECK_THROWS(shape_mismatch, "at most 512 tokens", run(513));
}
