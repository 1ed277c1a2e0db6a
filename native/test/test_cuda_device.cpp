// A GPU, real or emulated (--device cuda), and the variable that says what computes on it.
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

}  // namespace

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
