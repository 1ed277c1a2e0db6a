// A GPU, real or emulated (--device cuda), and the variable that says what computes on it.
#include <cmath>
#include <cstdlib>

#include "test/check.h"
#include "test/fixture.h"

using namespace kandinsky;
using namespace kandinsky::test;

namespace {

/// Sets KANDINSKY_CUDA_KERNELS for a while.
class WantedKernels {
 public:
  explicit WantedKernels(const char* value) {
    if (const char* before = std::getenv(name)) before_ = before;
    setenv(name, value, 1);
  }
  ~WantedKernels() { before_.empty() ? unsetenv(name) : setenv(name, before_.c_str(), 1); }

 private:
  static constexpr const char* name = "KANDINSKY_CUDA_KERNELS";
  std::string before_;
};

/// The relative error of a float32 network.
double error_with(const char* kernels) {
  const WantedKernels wanted(kernels);
  const Trace trace = read_trace(trace_names("clip-text-").front());
  const Component component = read_component(trace.checkpoint, trace.component);
  LoadOptions options;
  options.device = device();
  const auto network = load_network(component.class_name, component.config, component.sources, options);
  const HostTensors results = network->run("forward", {{"input_ids", trace.tensor("input.input_ids")}}, {});
  return relative_error(results.at("last_hidden_state"), trace.tensor("output.last_hidden_state"));
}

/// A decode of noise, twice as loud below as above.
HostTensor decoded(Tiling tiling) {
  Component component = read_component("kandinsky-2-2-decoder", "movq");
  for (TensorSource& source : component.sources) {
    if (source.shape.size() > 1) source.target = Type::f16;
  }
  LoadOptions options;
  options.device = device();
  options.tiling = tiling;
  HostTensor latents{{1, 4, 37, 5}, {}, {}, false};
  for (int i = 0; i < 4 * 37 * 5; ++i) latents.f32.push_back((1 + i / 5 % 37 / 37.0f) * std::sin(12.9898f * i));
  const auto movq = load_network(component.class_name, component.config, component.sources, options);
  return movq->run("decode", {{"latents", latents}}, {}).at("sample");
}

}  // namespace

TEST(cuda_decodes_the_same_picture_in_tiles_but_for_rounding) {
  if (device() == "cpu") return;
  const double error = relative_error(decoded(Tiling::always), decoded(Tiling::never));
  CHECK_MESSAGE(error < 0.005, "off by " + std::to_string(error));
}

TEST(cuda_kernels_compute_float32_networks_only_when_told_to) {
  if (device() == "cpu") return;
  CHECK(error_with("on") < 2e-3);  // a GPU's own float32 products may round to 10 bits
  CHECK_CLOSE(error_with("off"), error_with("on"), 1e-6);
  const double error = error_with("always");
  CHECK(error > 1e-4 && error < 0.02);  // bfloat16
}

TEST(cuda_kernels_are_chosen_by_known_names_only) {
  if (device() == "cpu") return;
  CHECK_THROWS(invalid_argument, "Expected on, off or always for KANDINSKY_CUDA_KERNELS but received yes", error_with("yes"));
}
