// kandinsky-network-bench --configs FILE [--device NAME] [--type NAME] [--case NAME ...] [--seconds N]
//
// Speed of whole networks at their published size (native/bench/configs.json) with random weights, where there is no Node.
// Cases are bench/bench.mjs's: prior, unet-512, unet-768, unet-1024, movq-512 ...; "matrix" is ggml's product of two
// float16 matrices (on a GPU: cuBLAS), what the device's matrix rate is measured by. Prints a JSON line for each: the
// best of the runs that fit into the seconds; tflops is 0 where ggml's operations compute, which are not counted.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/error.h"
#include "ggml-alloc.h"
#include "models/network.h"
#include "test/backends.h"
#include "test/json.h"

namespace kandinsky {
namespace {

struct Options {
  std::string configs, device = "cpu", type = "q8_0";
  std::vector<std::string> cases;
  double seconds = 3;
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Milliseconds of the fastest of several runs, of which the first does not count: it builds the graph.
template <typename Run>
double best_ms(double seconds, Run run) {
  run();
  double best = INFINITY;
  const double end = now() + seconds;
  do {
    const double start = now();
    run();
    best = std::min(best, (now() - start) * 1e3);
  } while (now() < end);
  return best;
}

/// As src/networks/policy.ts decides, for types of blocks that a row holds.
Type target_of(const TensorSpec& spec, Type wanted) {
  const std::vector<int64_t> shape = matrix_shape(spec.shape, spec.transposed);
  if (std::count_if(shape.begin(), shape.end(), [](int64_t n) { return n != 1; }) < 2) return Type::f32;
  if (spec.precision == Precision::exact) return Type::f32;
  if (!is_quantized(wanted)) return wanted;
  if (spec.precision == Precision::half) return Type::f16;
  const Type type = spec.precision == Precision::q8_0 ? Type::q8_0 : wanted;
  for (const Type fitting : {type, Type::q8_0}) {
    if (shape.back() % block_size(fitting) == 0) return fitting;
  }
  return Type::f16;
}

/// Scales as scripts/random-checkpoint.mjs has them.
TensorSource random_source(const TensorSpec& spec, Type wanted, uint64_t seed) {
  TensorSource source;
  source.name = spec.name;
  source.shape = spec.shape;
  source.transposed = spec.transposed;
  source.target = target_of(spec, wanted);
  if (spec.shape.size() == 1) {
    const bool gain = spec.name.find("norm") != std::string::npos && spec.name.find("weight") != std::string::npos;
    source.random = {seed, gain ? 0.1f : 0.02f, gain ? 1.0f : 0.0f};
  } else {
    const double fan_in = static_cast<double>(element_count(spec.shape)) / spec.shape[0];
    source.random = {seed, static_cast<float>(1 / std::sqrt(fan_in)), 0};
  }
  return source;
}

HostTensor noise(const std::vector<int64_t>& shape) {
  static std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  HostTensor tensor;
  tensor.shape = shape;
  tensor.f32.resize(element_count(shape));
  for (float& value : tensor.f32) value = normal(generator);
  return tensor;
}

HostTensor integers(const std::vector<int64_t>& shape, int32_t value) {
  HostTensor tensor;
  tensor.shape = shape;
  tensor.is_int = true;
  tensor.i32.assign(element_count(shape), value);
  return tensor;
}

/// A guided step of one picture, or a decode; `size` in pixels.
HostTensors inputs_of(const std::string& network, int64_t size) {
  const int64_t latent = size / 8;
  HostTensor timestep = noise({1});
  timestep.f32[0] = 500;
  if (network == "prior") {
    return {{"timestep", timestep},
            {"hidden_states", noise({2, 1280})},
            {"proj_embedding", noise({2, 1280})},
            {"encoder_hidden_states", noise({2, 77, 1280})},
            {"attention_mask", integers({2, 77}, 1)}};
  }
  if (network == "unet") return {{"timestep", timestep}, {"sample", noise({2, 4, latent, latent})}, {"image_embeds", noise({2, 1280})}};
  return {{"latents", noise({1, 4, latent, latent})}};
}

/// Networks stay loaded from case to case.
class Networks {
 public:
  explicit Networks(const Options& options) : options_(options), configs_(test::parse_json(test::read_text(options.configs))) {}

  Network& get(const std::string& name) {
    std::unique_ptr<Network>& network = networks_[name];
    if (network) return *network;
    if (!configs_.has(name)) fail(ErrorCode::invalid_argument, "Expected a network in {} but received {}", options_.configs, name);
    const test::Json& json = configs_[name];
    const Config config(name, test::metadata_of(json));
    std::vector<TensorSource> sources;
    for (const TensorSpec& spec : describe_network(json["class"].text, config)) {
      sources.push_back(random_source(spec, parse_type(options_.type), sources.size()));
    }
    LoadOptions load;
    load.device = options_.device;
    network = load_network(json["class"].text, config, sources, load);
    return *network;
  }

 private:
  const Options& options_;
  test::Json configs_;
  std::map<std::string, std::unique_ptr<Network>> networks_;
};

void bench_network(Networks& networks, const Options& options, const std::string& name) {
  const size_t dash = name.find('-');
  const std::string kind = name.substr(0, dash);
  const int64_t size = dash == std::string::npos ? 0 : std::atoll(name.c_str() + dash + 1);
  const double start = now();
  Network& network = networks.get(kind);
  const double load_ms = (now() - start) * 1e3;
  const HostTensors inputs = inputs_of(kind, size);
  const std::string method = kind == "movq" ? "decode" : "forward";
  const double ms = best_ms(options.seconds, [&] { network.run(method, inputs, {}); });
  const double tflops = network.flops().value_or(0) / ms / 1e9;
  std::printf("{\"case\":\"%s\",\"device\":\"%s\",\"type\":\"%s\",\"ms_per_step\":%.3f,\"tflops\":%.1f,\"weight_mb\":%.0f,\"compute_mb\":%.0f,\"load_ms\":%.0f}\n",
              name.c_str(), options.device.c_str(), options.type.c_str(), ms, tflops, network.weight_bytes() / 1e6, network.compute_bytes() / 1e6, load_ms);
}

void bench_matrix(const Options& options) {
  const Device device(options.device, 0);
  const int64_t size = device.is_cpu() ? 1024 : 8192;
  std::vector<std::byte> arena(16 * ggml_tensor_overhead() + ggml_graph_overhead());
  const ggml_context_ptr context(ggml_init({arena.size(), arena.data(), true}));
  ggml_tensor* a = ggml_new_tensor_2d(context.get(), GGML_TYPE_F16, size, size);
  ggml_tensor* b = ggml_new_tensor_2d(context.get(), GGML_TYPE_F16, size, size);
  ggml_tensor* product = ggml_mul_mat(context.get(), a, b);
  if (!ggml_backend_supports_op(device.backend(), product)) fail(ErrorCode::internal, "device {} multiplies no float16 matrices", device.name());
  ggml_cgraph* graph = ggml_new_graph(context.get());
  ggml_build_forward_expand(graph, product);
  const ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(context.get(), device.backend()));
  if (!buffer) fail(ErrorCode::out_of_memory, "no memory for matrices on {}", device.name());
  ggml_backend_buffer_clear(buffer.get(), 0x2c);  // 0x2c2c is a float16 of ordinary size
  const double ms = best_ms(options.seconds, [&] { ggml_backend_graph_compute(device.backend(), graph); });
  std::printf("{\"case\":\"matrix\",\"device\":\"%s\",\"type\":\"f16\",\"ms_per_step\":%.3f,\"tflops\":%.1f}\n", options.device.c_str(), ms,
              2.0 * size * size * size / ms / 1e9);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i], value = argv[i + 1];
    if (option == "--configs") options.configs = value;
    if (option == "--device") options.device = value;
    if (option == "--type") options.type = value;
    if (option == "--case") options.cases.push_back(value);
    if (option == "--seconds") options.seconds = std::atof(value.c_str());
  }
  return options;
}

}  // namespace
}  // namespace kandinsky

int main(int argc, char** argv) {
  using namespace kandinsky;
  const Options options = parse(argc, argv);
  if (options.configs.empty() || options.cases.empty()) {
    std::fprintf(stderr, "usage: %s --configs FILE [--device NAME] [--type NAME] [--case NAME ...] [--seconds N]\n", argv[0]);
    return 2;
  }
  try {
    test::load_own_backends();
    Networks networks(options);
    for (const std::string& name : options.cases) {
      name == "matrix" ? bench_matrix(options) : bench_network(networks, options, name);
      std::fflush(stdout);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
