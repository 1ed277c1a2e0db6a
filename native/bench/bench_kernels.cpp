// kandinsky-native-bench [--threads N] [--filter TEXT] [--variant NAME] [--cpu-time]: speed of each kernel at the
// shapes of the 2.2 networks (test/kernel_shapes.h). Best of several runs; convolutions count the
// multiplications of the direct method whatever they use, so that numbers compare. --cpu-time counts processor time
// instead of elapsed time (meant for one thread, on a machine that is busy with other work).
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <random>
#include <string>

#include "test/kernel_shapes.h"
#include "test/thread_team.h"

namespace kandinsky {
namespace {

using test::Aligned;

int threads = 2;
bool cpu_time = false;
std::string filter, only_variant;

double now() {
  if (cpu_time) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds of the fastest of several runs.
template <typename Args>
double best_time(const Kernel<Args>& kernel, const Args& args) {
  test::KernelRun<Args> run(kernel, args, threads);
  run.run();
  double best = 1e9, total = 0;
  for (int i = 0; i < 30 && (i < 5 || total < 0.6); ++i) {
    const double start = now();
    run.run();
    const double seconds = now() - start;
    best = seconds < best ? seconds : best;
    total += seconds;
  }
  return best;
}

void report(const KernelTable& kernels, const std::string& name, double seconds, double flops) {
  std::printf("%-12s %-44s %9.3f ms %8.1f GFLOP/s\n", kernels.name, name.c_str(), seconds * 1e3, flops / seconds / 1e9);
  std::fflush(stdout);
}

/// Small random values; the kernels' speed does not depend on them, but zeros and NaNs would flatter some machines.
void fill(void* memory, size_t bytes, NumberType type) {
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  float values[1009];
  for (float& value : values) value = uniform(generator);
  for (size_t i = 0; i < bytes / (type == NumberType::f32 ? 4 : 2); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &values[i % 1009], 4);
    if (type == NumberType::f32) {
      static_cast<uint32_t*>(memory)[i] = bits;
    } else {
      static_cast<uint16_t*>(memory)[i] = static_cast<uint16_t>(bits >> 16);
    }
  }
}

Aligned<unsigned char> filled(size_t count, NumberType type) {
  Aligned<unsigned char> memory(count * (type == NumberType::f32 ? 4 : 2));
  fill(memory.data(), memory.size(), type);
  return memory;
}

bool wanted(const std::string& name) { return name.find(filter) != std::string::npos; }

/// Weights as a float32 file has them, and packed.
struct TestWeights {
  Aligned<unsigned char> values, packed;
  ProductWeights weights;
  TestWeights(const KernelTable& kernels, Algorithm algorithm, int out, int taps, int in)
      : values(filled(static_cast<size_t>(out) * taps * in, NumberType::f32)) {
    const WeightRows rows = {values.data(), static_cast<int64_t>(taps) * in * 4, StoredType::f32, out, taps, in};
    packed = Aligned<unsigned char>(kernels.packed_size(algorithm, &rows));
    test::run_kernel(kernels.pack, PackArgs{algorithm, rows, packed.data()}, threads);
    weights = {algorithm, packed.data(), rows};
  }
};

void bench_conv(const KernelTable& kernels, const test::ConvShape& shape) {
  const int batch = shape.batch, in = shape.in, out = shape.out, size = shape.width;
  const char* names[] = {"direct", "F2", "F4"};
  for (int i = 0; i < (kernels.has_winograd ? 3 : 1); ++i) {
    const std::string name = "conv3x3 " + std::to_string(in) + "->" + std::to_string(out) + " @" +
                             std::to_string(size) + " " + names[i];
    if (!wanted(name)) continue;
    const TestWeights weights(kernels, static_cast<Algorithm>(i), out, 9, in);
    const size_t pixels = static_cast<size_t>(batch) * size * size;
    const auto src = filled(static_cast<size_t>(batch) * (size + 2) * (size + 2) * in, kernels.act_type);
    const auto residual = filled(pixels * out, NumberType::f32), dst = filled(pixels * out, NumberType::f32);
    ConvArgs args = {};
    args.src = src.data();
    args.batch = batch;
    args.src_height = args.src_width = size + 2;
    args.height = args.width = size;
    args.kernel = 3;
    args.stride = 1;
    args.weights = weights.weights;
    args.residual = reinterpret_cast<const float*>(residual.data());
    args.dst = reinterpret_cast<float*>(dst.data());
    const double flops = 2.0 * pixels * out * 9 * in;
    report(kernels, name, best_time(kernels.conv, args), flops);
    if (!wanted(name + " q8_0")) continue;
    const Aligned<unsigned char> blocks(static_cast<size_t>(out) * 9 * in / 32 * 34);
    std::memset(blocks.data(), 0x11, blocks.size());
    args.weights.packed = nullptr;
    args.weights.rows = {blocks.data(), 9 * in / 32 * 34, StoredType::q8_0, out, 9, in};
    report(kernels, name + " q8_0", best_time(kernels.conv, args), flops);
  }
}

void bench_gemm(const KernelTable& kernels, const test::GemmShape& shape) {
  const auto& [kind, rows, in, out, activation, has_bias, has_residual, f32_dst] = shape;
  const std::string name = "linear " + std::to_string(in) + "->" + std::to_string(out) + " x" + std::to_string(rows) +
                           (activation == Activation::gelu ? " gelu" : "");
  if (!wanted(name)) return;
  const TestWeights weights(kernels, Algorithm::direct, out, 1, in);
  const auto src = filled(static_cast<size_t>(rows) * in, kernels.act_type);
  Aligned<float> dst(static_cast<size_t>(rows) * out);
  GemmArgs args = {};
  args.src = src.data();
  args.src_stride = in;
  args.rows = rows;
  args.weights = weights.weights;
  args.activation = activation;
  args.f32_dst = f32_dst;
  args.dst = dst.data();
  args.dst_stride = out;
  report(kernels, name, best_time(kernels.gemm, args), 2.0 * rows * in * out);
}

void bench_attention(const KernelTable& kernels, const test::AttentionShape& shape) {
  const int batch = shape.batch, heads = shape.heads, dim = shape.head_dim, tokens = shape.tokens;
  const int added = shape.added_tokens;
  const std::string name = "attention " + std::to_string(heads) + " heads of " + std::to_string(dim) + ", " +
                           std::to_string(tokens) + "+" + std::to_string(added);
  if (!wanted(name)) return;
  const int width = heads * dim;
  const auto qkv = filled(static_cast<size_t>(batch) * tokens * width * 3, kernels.act_type);
  const auto extra = filled(static_cast<size_t>(batch) * (added + 1) * width, kernels.act_type);
  const size_t size = kernels.act_type == NumberType::f32 ? 4 : 2;
  Aligned<unsigned char> dst(static_cast<size_t>(batch) * tokens * width * size);
  AttentionArgs args = {};
  args.q = qkv.data();
  args.k = qkv.data() + width * size;
  args.v = qkv.data() + 2 * width * size;
  args.q_stride = args.kv_stride = 3 * width;
  args.added_k = args.added_v = extra.data();
  args.added_stride = args.dst_stride = width;
  args.batch = batch;
  args.heads = heads;
  args.head_dim = dim;
  args.queries = args.tokens = tokens;
  args.added_tokens = added;
  args.scale = 0.05f;
  args.dst = dst.data();
  report(kernels, name, best_time(kernels.attention, args), 4.0 * batch * width * tokens * (tokens + added));
}

void bench_prepare(const KernelTable& kernels, const test::PrepareShape& shape) {
  const int batch = shape.batch, channels = shape.channels0, size = shape.width;
  const bool spatial = shape.spatial > 0;
  const std::string name =
      "prepare " + std::to_string(channels) + " @" + std::to_string(size) + (spatial ? " spatial" : "");
  if (!wanted(name)) return;
  const size_t values = static_cast<size_t>(batch) * size * size * channels;
  const auto src = filled(values, NumberType::f32);
  const auto vectors = filled(static_cast<size_t>(channels) * batch, NumberType::f32);
  const auto low = filled(values / 64, NumberType::f32);
  Aligned<float> dst(static_cast<size_t>(batch) * (size + 2) * (size + 2) * channels);
  PrepareArgs args = {};
  args.src[0] = reinterpret_cast<const float*>(src.data());
  args.channels[0] = channels;
  args.batch = batch;
  args.height = args.width = size;
  args.groups = 32;
  args.eps = 1e-5f;
  args.gamma = args.beta = reinterpret_cast<const float*>(vectors.data());
  if (spatial) {
    args.spatial_scale = args.spatial_shift = reinterpret_cast<const float*>(low.data());
    args.spatial_height = args.spatial_width = size / 8;
  } else {
    args.scale = args.shift = reinterpret_cast<const float*>(vectors.data());
    args.modulation_stride = channels;
  }
  args.silu = true;
  args.pad = 1;
  args.dst = dst.data();
  const double seconds = best_time(kernels.prepare, args);
  std::printf("%-12s %-44s %9.3f ms %8.3f ns/value\n", kernels.name, name.c_str(), seconds * 1e3,
              seconds * 1e9 / values);
}

template <typename Table, typename Bench>
void bench_table(const KernelTable& kernels, const Table& shapes, Bench bench) {
  for (const auto& shape : shapes) {
    if (shape.shape == test::Shape::network) bench(kernels, shape);
  }
}

void bench_all(const KernelTable& kernels) {
  bench_table(kernels, test::conv_shapes, bench_conv);
  bench_table(kernels, test::gemm_shapes, bench_gemm);
  bench_table(kernels, test::attention_shapes, bench_attention);
  bench_table(kernels, test::prepare_shapes, bench_prepare);
}

}  // namespace
}  // namespace kandinsky

int main(int argc, char** argv) {
  using namespace kandinsky;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "--threads" && i + 1 < argc) {
      threads = std::atoi(argv[++i]);
    } else if (option == "--filter" && i + 1 < argc) {
      filter = argv[++i];
    } else if (option == "--variant" && i + 1 < argc) {
      only_variant = argv[++i];
    } else if (option == "--cpu-time") {
      cpu_time = true;
    } else {
      std::fprintf(stderr, "usage: %s [--threads N] [--filter TEXT] [--variant NAME] [--cpu-time]\n", argv[0]);
      return 2;
    }
  }
  for (const KernelTable* kernels : test::tested_kernels()) {
    if (only_variant.empty() || only_variant == kernels->name) bench_all(*kernels);
  }
}
