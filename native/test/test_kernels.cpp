// Every kernel of the tested tables against its plain reference, over the shapes of test/kernel_shapes.h and all thread
// counts alike.
#include <cstring>
#include <random>

#include "kernels/reference.h"
#include "test/check.h"
#include "test/kernel_shapes.h"
#include "test/stored_rows.h"
#include "test/tested_kernels.h"
#include "test/thread_team.h"

namespace kandinsky {
namespace {

using namespace test;

std::vector<float> random_values(size_t count, unsigned seed, float spread = 1.0f, float mean = 0.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(mean, spread);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

float from_bf16(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

uint16_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

size_t act_size(const KernelTable& kernels) { return kernels.act_type == NumberType::bf16 ? 2 : 4; }

/// An act buffer with these values.
Aligned<unsigned char> to_act(const KernelTable& kernels, const std::vector<float>& values) {
  Aligned<unsigned char> act(values.size() * act_size(kernels) + 64);
  for (size_t i = 0; i < values.size(); ++i) {
    if (kernels.act_type == NumberType::bf16) {
      reinterpret_cast<uint16_t*>(act.data())[i] = to_bf16(values[i]);
    } else {
      reinterpret_cast<float*>(act.data())[i] = values[i];
    }
  }
  return act;
}

std::vector<float> read_values(NumberType type, const unsigned char* memory, size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = type == NumberType::bf16 ? from_bf16(reinterpret_cast<const uint16_t*>(memory)[i])
                                         : reinterpret_cast<const float*>(memory)[i];
  }
  return values;
}

/// Relative L2 distance; infinite if anything is not finite.
double distance(const float* actual, const std::vector<float>& expected) {
  double difference = 0, norm = 1e-30;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (!std::isfinite(actual[i])) return INFINITY;
    difference += (static_cast<double>(actual[i]) - expected[i]) * (static_cast<double>(actual[i]) - expected[i]);
    norm += static_cast<double>(expected[i]) * expected[i];
  }
  return std::sqrt(difference / norm);
}

void check_distance(const KernelTable& kernels, const std::string& what, const float* actual,
                    const std::vector<float>& expected, double tolerance) {
  const double error = distance(actual, expected);
  CHECK_MESSAGE(error <= tolerance, what + " in " + kernels.name + " is off by " + std::to_string(error) +
                                        " (allowed " + std::to_string(tolerance) + ")");
}

template <typename Call>
void for_each_variant(Call call) {
  for (const KernelTable* kernels : tested_kernels()) call(*kernels);
}

/// Runs with 1, 2 and 3 threads into `bytes` bytes of dst and checks that they agree bit for bit.
template <typename Args>
void run_all_team_sizes(const KernelTable& kernels, const Kernel<Args>& kernel, Args args, unsigned char* dst,
                        size_t bytes, const std::string& what) {
  run_kernel(kernel, args, 1);
  const std::vector<unsigned char> first(dst, dst + bytes);
  for (int nth : {2, 3}) {
    std::memset(dst, 0xff, bytes);
    run_kernel(kernel, args, nth);
    CHECK_MESSAGE(std::memcmp(first.data(), dst, bytes) == 0,
                  what + " in " + kernels.name + " differs with " + std::to_string(nth) + " threads");
  }
}

WeightRows float_rows(const std::vector<float>& weights, int out, int taps, int in) {
  return {weights.data(), static_cast<int64_t>(taps) * in * 4, StoredType::f32, out, taps, in};
}

Aligned<unsigned char> packed(const KernelTable& kernels, Algorithm algorithm, const WeightRows& rows) {
  Aligned<unsigned char> memory(kernels.packed_size(algorithm, &rows));
  run_kernel(kernels.pack, PackArgs{algorithm, rows, memory.data()}, 2);
  return memory;
}

/// How far a product of float32 operands may be from the reference, relative to the norm: what rounding weights (and
/// activations, where the variant does) to bfloat16 makes of it, times the algorithm's amplification.
double tolerance_of(const KernelTable& kernels, Algorithm algorithm) {
  const double amplification[] = {1.0, 2.2, 6.0};
  const bool bf16_weights = kernels.weight_type == NumberType::bf16, bf16_act = kernels.act_type == NumberType::bf16;
  return (bf16_act ? 0.0028 : bf16_weights ? 0.002 : 1e-6) * amplification[static_cast<int>(algorithm)];
}

const char* algorithm_name(Algorithm algorithm) {
  return algorithm == Algorithm::direct ? "direct" : algorithm == Algorithm::winograd_f2 ? "F(2x2)" : "F(4x4)";
}

void check_conv(const ConvShape& c, Algorithm algorithm) {
  const int pad = c.kernel / 2, height = (c.height + 2 * pad - c.kernel) / c.stride + 1;
  const int width = (c.width + 2 * pad - c.kernel) / c.stride + 1, taps = c.kernel * c.kernel;
  const auto src = random_values(static_cast<size_t>(c.batch) * c.height * c.width * c.in, 1);
  const auto weights = random_values(static_cast<size_t>(c.out) * taps * c.in, 2, 1 / std::sqrt(9.0f * c.in));
  const auto bias = random_values(c.out, 3);
  const auto residual = random_values(static_cast<size_t>(c.batch) * height * width * c.out, 4);
  std::vector<float> expected(residual.size());
  reference::conv(src.data(), c.batch, c.height, c.width, c.in, weights.data(), c.out, c.kernel, c.stride, pad, height,
                  width, c.bias ? bias.data() : nullptr, c.residual ? residual.data() : nullptr, expected.data());
  const std::string what = std::string(algorithm_name(algorithm)) + " conv " + std::to_string(c.in) + "->" +
                           std::to_string(c.out) + " at " + std::to_string(c.batch) + "x" + std::to_string(c.height) +
                           "x" + std::to_string(c.width) + " kernel " + std::to_string(c.kernel);
  for_each_variant([&](const KernelTable& kernels) {
    PrepareArgs prepare = {};
    prepare.src[0] = src.data();
    prepare.channels[0] = c.in;
    prepare.batch = c.batch;
    prepare.height = c.height;
    prepare.width = c.width;
    prepare.pad = pad;
    Aligned<unsigned char> act(static_cast<size_t>(c.batch) * (c.height + 2) * (c.width + 2) * even(c.in) * 4);
    prepare.dst = act.data();
    run_kernel(kernels.prepare, prepare, 2);

    WeightRows rows = float_rows(weights, c.out, taps, c.in);
    const Aligned<unsigned char> memory = packed(kernels, algorithm, rows);
    Aligned<float> dst(expected.size());
    ConvArgs args = {};
    args.src = act.data();
    args.batch = c.batch;
    args.src_height = c.height + 2 * pad;
    args.src_width = c.width + 2 * pad;
    args.height = height;
    args.width = width;
    args.kernel = c.kernel;
    args.stride = c.stride;
    args.weights = {algorithm, memory.data(), rows};
    args.bias = c.bias ? bias.data() : nullptr;
    args.residual = c.residual ? residual.data() : nullptr;
    args.dst = dst.data();
    unsigned char* bytes = reinterpret_cast<unsigned char*>(dst.data());
    run_all_team_sizes(kernels, kernels.conv, args, bytes, expected.size() * 4, what);
    check_distance(kernels, what, dst.data(), expected, tolerance_of(kernels, algorithm));
    args.weights.packed = nullptr;
    run_all_team_sizes(kernels, kernels.conv, args, bytes, expected.size() * 4, what + ", weights expanded");
    check_distance(kernels, what + ", weights expanded", dst.data(), expected, tolerance_of(kernels, algorithm));
  });
}

}  // namespace

TEST(kernels_conv_direct) {
  for (const ConvShape& c : conv_shapes) {
    if (c.multiplications() <= tested_multiplications()) check_conv(c, Algorithm::direct);
  }
}

TEST(kernels_conv_winograd) {
  for (const ConvShape& c : conv_shapes) {
    // What choose_algorithm() takes, and fewer results than it does.
    if (c.kernel != 3 || c.stride != 1 || c.in % 16 != 0 || c.multiplications() > tested_multiplications()) continue;
    if (!tested_kernels().front()->has_winograd) continue;
    check_conv(c, Algorithm::winograd_f2);
    check_conv(c, Algorithm::winograd_f4);
  }
}

TEST(kernels_gemm) {
  for (const GemmShape& c : gemm_shapes) {
    if (c.multiplications() > tested_multiplications()) continue;
    const int width = even(c.in);
    const auto src = random_values(static_cast<size_t>(c.rows) * c.in, 1);
    auto weights = random_values(static_cast<size_t>(c.out) * c.in, 2, 2 / std::sqrt(static_cast<float>(c.in)));
    for (float& weight : weights) weight = from_bf16(to_bf16(weight));
    std::vector<uint16_t> narrow(weights.size());
    for (size_t i = 0; i < weights.size(); ++i) narrow[i] = to_bf16(weights[i]);
    const auto bias = random_values(c.out, 3), residual = random_values(static_cast<size_t>(c.rows) * c.out, 4);
    std::vector<float> expected(residual.size()), wide_src(static_cast<size_t>(c.rows) * width);
    for (int r = 0; r < c.rows; ++r)
      for (int k = 0; k < c.in; ++k) wide_src[r * width + k] = src[r * c.in + k];
    reference::gemm(src.data(), c.rows, c.in, weights.data(), c.out, c.bias ? bias.data() : nullptr, c.activation,
                    c.residual ? residual.data() : nullptr, expected.data());
    const std::string what =
        "gemm " + std::to_string(c.rows) + "x" + std::to_string(c.in) + "x" + std::to_string(c.out);
    for_each_variant([&](const KernelTable& kernels) {
      const auto act = to_act(kernels, wide_src);
      WeightRows rows = float_rows(weights, c.out, 1, c.in);
      const auto memory = packed(kernels, Algorithm::direct, rows);
      const size_t size = c.f32_dst ? 4 : act_size(kernels);
      Aligned<unsigned char> dst(expected.size() * size);
      GemmArgs args = {};
      args.src = act.data();
      args.src_stride = width;
      args.rows = c.rows;
      args.weights = {Algorithm::direct, memory.data(), rows};
      args.bias = c.bias ? bias.data() : nullptr;
      args.activation = c.activation;
      args.residual = c.residual ? residual.data() : nullptr;
      args.residual_stride = c.out;
      args.f32_dst = c.f32_dst;
      args.dst = dst.data();
      args.dst_stride = c.out;
      const auto check = [&](const std::string& how) {
        run_all_team_sizes(kernels, kernels.gemm, args, dst.data(), dst.size(), what + how);
        const std::vector<float> actual =
            read_values(c.f32_dst ? NumberType::f32 : kernels.act_type, dst.data(), expected.size());
        const double tolerance = kernels.act_type == NumberType::bf16 ? 0.004 : 2e-6;
        check_distance(kernels, what + how, actual.data(), expected, tolerance);
      };
      check("");
      args.weights.packed = nullptr;
      check(", weights expanded");
      args.weights.rows.data = narrow.data();
      args.weights.rows.row_bytes = c.in * 2;
      args.weights.rows.type = StoredType::bf16;
      check(", bfloat16 weights expanded");
    });
  }
}

TEST(kernels_prepare) {
  for (const PrepareShape& c : prepare_shapes) {
    if (c.multiplications() > tested_multiplications()) continue;
    const int channels = c.channels0 + c.channels1, s = c.spatial ? c.spatial : 1;
    const size_t pixels = static_cast<size_t>(c.batch) * c.height * c.width;
    const auto src0 = random_values(pixels * c.channels0, 1, 2.0f, 3.0f), src1 = random_values(pixels * c.channels1, 2);
    const auto gamma = random_values(channels, 3), beta = random_values(channels, 4);
    const auto modulation = random_values(static_cast<size_t>(c.batch) * 2 * channels, 5);
    const auto scale = random_values(pixels / s / s * channels, 6), shift = random_values(pixels / s / s * channels, 7);
    PrepareArgs args = {};
    args.src[0] = src0.data();
    args.src[1] = src1.data();
    args.channels[0] = c.channels0;
    args.channels[1] = c.channels1;
    args.batch = c.batch;
    args.height = c.height;
    args.width = c.width;
    args.groups = c.groups;
    args.eps = 1e-5f;
    args.gamma = c.affine ? gamma.data() : nullptr;
    args.beta = c.affine ? beta.data() : nullptr;
    args.scale = c.modulation ? modulation.data() : nullptr;
    args.shift = c.modulation ? modulation.data() + channels : nullptr;
    args.modulation_stride = 2 * channels;
    args.spatial_scale = c.spatial ? scale.data() : nullptr;
    args.spatial_shift = c.spatial ? shift.data() : nullptr;
    args.spatial_height = c.height / s;
    args.spatial_width = c.width / s;
    args.silu = c.silu;
    args.resample = c.resample;
    args.pad = c.pad;
    args.f32_dst = c.f32_dst;
    const int grow = c.resample == Resample::nearest_2x ? 2 : 1, shrink = c.resample == Resample::avg_pool_2x2 ? 2 : 1;
    const int height = c.height * grow / shrink + 2 * c.pad, width = c.width * grow / shrink + 2 * c.pad;
    std::vector<float> expected(static_cast<size_t>(c.batch) * height * width * even(channels));
    reference::prepare(args, expected.data());
    const std::string what = "prepare " + std::to_string(channels) + " channels at " + std::to_string(c.height) + "x" +
                             std::to_string(c.width) + " groups " + std::to_string(c.groups);
    for_each_variant([&](const KernelTable& kernels) {
      Aligned<unsigned char> dst(expected.size() * (c.f32_dst ? 4 : act_size(kernels)));
      args.dst = dst.data();
      run_all_team_sizes(kernels, kernels.prepare, args, dst.data(), dst.size(), what);
      const NumberType type = c.f32_dst ? NumberType::f32 : kernels.act_type;
      const std::vector<float> actual = read_values(type, dst.data(), expected.size());
      check_distance(kernels, what, actual.data(), expected, type == NumberType::f32 ? 2e-6 : 0.003);
    });
  }
}

TEST(kernels_group_norm_in_parts) {
  const int channels = 48, groups = 6, width = 37, height = 29, first_rows = 13;
  const auto src = random_values(static_cast<size_t>(height) * width * channels, 1, 2.0f, 3.0f);
  PrepareArgs whole = {};
  whole.src[0] = src.data();
  whole.channels[0] = channels;
  whole.batch = 1;
  whole.height = height;
  whole.width = width;
  whole.groups = groups;
  whole.eps = 1e-5f;
  whole.f32_dst = true;
  std::vector<float> expected(src.size());
  reference::prepare(whole, expected.data());
  PrepareArgs above = whole, below = whole;
  const size_t above_size = static_cast<size_t>(first_rows) * width * channels;
  above.height = first_rows;
  below.height = height - first_rows;
  below.src[0] = src.data() + above_size;
  for_each_variant([&](const KernelTable& kernels) {
    Aligned<double> sums_above(2 * groups), sums(2 * groups);
    above.sums = nullptr;
    above.dst = sums_above.data();
    run_all_team_sizes(kernels, kernels.group_sums, above, reinterpret_cast<unsigned char*>(sums_above.data()),
                       2 * groups * sizeof(double), "group sums above");
    below.sums = sums_above.data();
    below.dst = sums.data();
    run_all_team_sizes(kernels, kernels.group_sums, below, reinterpret_cast<unsigned char*>(sums.data()),
                       2 * groups * sizeof(double), "group sums below");
    Aligned<float> dst(src.size());
    for (PrepareArgs* part : {&above, &below}) {
      part->sums = sums.data();
      part->pixels = static_cast<int64_t>(height) * width;
      part->dst = dst.data() + (part == &above ? 0 : above_size);
      run_kernel(kernels.prepare, *part, 2);
    }
    check_distance(kernels, "group norm in parts", dst.data(), expected, 2e-6);
  });
}

TEST(kernels_layer_norm) {
  for (const int features : {64, 77, 2048}) {
    const int rows = 19;
    const auto src = random_values(static_cast<size_t>(rows) * features, 1, 1.0f, 5.0f);
    const auto gamma = random_values(features, 2), beta = random_values(features, 3);
    LayerNormArgs args = {src.data(), rows, features, 1e-5f, gamma.data(), beta.data(), true, nullptr};
    std::vector<float> expected(src.size());
    reference::layer_norm(args, expected.data());
    for_each_variant([&](const KernelTable& kernels) {
      Aligned<float> dst(expected.size());
      args.dst = dst.data();
      run_all_team_sizes(kernels, kernels.layer_norm, args, reinterpret_cast<unsigned char*>(dst.data()),
                         expected.size() * 4, "layer_norm");
      check_distance(kernels, "layer_norm", dst.data(), expected, 2e-6);
    });
  }
}

TEST(kernels_expand_rows_of_every_type) {
  for (const StoredCase& c : stored_cases) {
    const int count = c.values == 1 ? 1037 : 9 * c.values;
    const std::vector<unsigned char> row = random_rows(c, 1, count);  // no byte more: reading it would be an error
    std::vector<float> expected(count);
    reference::expander(c.type)(row.data(), expected.data(), count);
    for_each_variant([&](const KernelTable& kernels) {
      if (!kernels.expander) return;
      std::vector<float> values(count);
      kernels.expander(c.type)(row.data(), values.data(), count);
      CHECK_MESSAGE(values == expected, std::string(c.name) + " in " + kernels.name);
    });
  }
}

TEST(kernels_products_of_weights_of_every_type) {
  struct Case {
    int rows, in, out;
  };
  for (const Case& size : {Case{70, 256, 72}, Case{600, 256, 40}, Case{1, 1024, 65}}) {
    const auto src = random_values(static_cast<size_t>(size.rows) * size.in, 1);
    for (const StoredCase& c : stored_cases) {
      const int64_t row_bytes = static_cast<int64_t>(size.in) / c.values * c.bytes;
      const std::vector<unsigned char> stored = random_rows(c, size.out, size.in);
      std::vector<float> weights(static_cast<size_t>(size.out) * size.in), expected(static_cast<size_t>(size.rows) * size.out);
      for (int o = 0; o < size.out; ++o) {
        reference::expander(c.type)(stored.data() + o * row_bytes, weights.data() + static_cast<size_t>(o) * size.in, size.in);
      }
      reference::gemm(src.data(), size.rows, size.in, weights.data(), size.out, nullptr, Activation::none, nullptr, expected.data());
      for_each_variant([&](const KernelTable& kernels) {
        const auto act = to_act(kernels, src);
        Aligned<float> dst(expected.size());
        GemmArgs args = {};
        args.src = act.data();
        args.src_stride = size.in;
        args.rows = size.rows;
        args.weights = {Algorithm::direct, nullptr, {stored.data(), row_bytes, c.type, size.out, 1, size.in}};
        args.f32_dst = true;
        args.dst = dst.data();
        args.dst_stride = size.out;
        run_kernel(kernels.gemm, args, 2);
        const std::string what = std::string(c.name) + " weights x" + std::to_string(size.rows);
        check_distance(kernels, what, dst.data(), expected, std::max(1e-5, 1.5 * tolerance_of(kernels, Algorithm::direct)));
      });
    }
  }
}

TEST(kernels_expand_every_half_precision_number) {
  std::vector<uint16_t> row(1 << 16);
  for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<uint16_t>(i);
  std::vector<float> expected(row.size());
  reference::expander(StoredType::f16)(row.data(), expected.data(), static_cast<int64_t>(row.size()));
  for_each_variant([&](const KernelTable& kernels) {
    if (!kernels.expander) return;
    std::vector<float> values(row.size());
    kernels.expander(StoredType::f16)(row.data(), values.data(), static_cast<int64_t>(row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      const bool same = values[i] == expected[i] || (std::isnan(values[i]) && std::isnan(expected[i]));
      if (!same) CHECK_MESSAGE(same, std::to_string(i) + " in " + kernels.name + " is " + std::to_string(values[i]));
    }
    CHECK(std::signbit(values[0x8000]));
  });
}

TEST(kernels_attention) {
  for (const AttentionShape& c : attention_shapes) {
    if (c.multiplications() > tested_multiplications()) continue;
    const int width = c.heads * c.head_dim, keys = c.added_tokens + c.tokens;
    // Values that bfloat16 holds, so that what is measured is the kernel and not the rounding of its input.
    const auto rounded = [](std::vector<float> values) {
      for (float& value : values) value = from_bf16(to_bf16(value));
      return values;
    };
    const auto q = rounded(random_values(static_cast<size_t>(c.batch) * c.queries * width, 1));
    const auto k = rounded(random_values(static_cast<size_t>(c.batch) * keys * width, 2));
    const auto v = rounded(random_values(static_cast<size_t>(c.batch) * keys * width, 3));
    const auto mask = random_values(static_cast<size_t>(c.batch) * c.heads * c.queries * keys, 4);
    std::vector<float> added_k, added_v, own_k, own_v;
    for (int b = 0; b < c.batch; ++b) {
      for (int j = 0; j < keys; ++j) {
        const size_t row = (static_cast<size_t>(b) * keys + j) * width;
        std::vector<float>& to_k = j < c.added_tokens ? added_k : own_k;
        std::vector<float>& to_v = j < c.added_tokens ? added_v : own_v;
        to_k.insert(to_k.end(), k.begin() + row, k.begin() + row + width);
        to_v.insert(to_v.end(), v.begin() + row, v.begin() + row + width);
      }
    }
    AttentionArgs args = {};
    args.q_stride = args.kv_stride = args.added_stride = args.dst_stride = width;
    args.batch = c.batch;
    args.heads = c.heads;
    args.head_dim = c.head_dim;
    args.queries = c.queries;
    args.tokens = c.tokens;
    args.added_tokens = c.added_tokens;
    args.scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
    args.mask = c.mask == AttentionShape::none ? nullptr : mask.data();
    args.mask_query_stride = c.mask == AttentionShape::per_key ? 0 : keys;
    args.mask_head_stride = c.mask == AttentionShape::per_head ? static_cast<int64_t>(c.queries) * keys : 0;
    args.mask_stride = c.mask == AttentionShape::per_key ? keys : static_cast<int64_t>(c.heads) * c.queries * keys;
    args.f32_dst = true;
    std::vector<float> expected(q.size());
    reference::attention(args, q.data(), k.data(), v.data(), expected.data());
    const std::string what = "attention " + std::to_string(c.heads) + " heads of " + std::to_string(c.head_dim) + ", " +
                             std::to_string(c.queries) + " queries, " + std::to_string(c.added_tokens) + "+" +
                             std::to_string(c.tokens) + " keys";
    for_each_variant([&](const KernelTable& kernels) {
      const auto act_q = to_act(kernels, q), act_k = to_act(kernels, own_k), act_v = to_act(kernels, own_v);
      const auto act_added_k = to_act(kernels, added_k), act_added_v = to_act(kernels, added_v);
      Aligned<float> dst(expected.size());
      args.q = act_q.data();
      args.k = act_k.data();
      args.v = act_v.data();
      args.added_k = act_added_k.data();
      args.added_v = act_added_v.data();
      args.dst = dst.data();
      run_all_team_sizes(kernels, kernels.attention, args, reinterpret_cast<unsigned char*>(dst.data()),
                         expected.size() * 4, what);
      check_distance(kernels, what, dst.data(), expected,
                     kernels.act_type == NumberType::bf16 ? 0.005 : 3e-6);
    });
  }
}

}  // namespace kandinsky
