// Layers against plain loops in double precision. Images are NCHW here, as at the engine's border.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <random>

#include "core/cpu_kernels.h"
#include "graph/low_rank.h"
#include "graph/resample.h"
#include "layers/activation.h"
#include "layers/attention.h"
#include "layers/tiles.h"
#include "layers/time_embedding.h"
#include "test/check.h"
#include "test/fixture.h"

using namespace kandinsky;
using namespace kandinsky::test;

namespace {

HostTensor random_tensor(const std::vector<int64_t>& shape, unsigned seed, float mean = 0) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(mean, 1);
  HostTensor tensor;
  tensor.shape = shape;
  tensor.f32.resize(element_count(shape));
  for (float& value : tensor.f32) value = normal(generator);
  return tensor;
}

/// Runs one layer: its weights come through a file, as everywhere; build returns the result and its rank.
class LayerRun {
 public:
  LayerRun(const HostTensors& weights, Type target = Type::f32) : device_("cpu", 2) {
    const std::string path = temporary_path("layer.bin");
    std::ofstream file(path, std::ios::binary);
    uint64_t offset = 0;
    for (const auto& [name, tensor] : weights) {
      const uint64_t bytes = tensor.f32.size() * sizeof(float);
      sources_.push_back({name, path, offset, bytes, Type::f32, tensor.shape, target, {}});
      file.write(reinterpret_cast<const char*>(tensor.f32.data()), static_cast<std::streamsize>(bytes));
      offset += bytes;
    }
    file.close();
    store_ = std::make_unique<WeightStore>("layer", sources_);
  }

  Weights weights() { return store_->root(); }

  HostTensor run(const HostTensors& inputs, int rank, const std::function<ggml_tensor*(Graph&)>& build) {
    store_->load(device_, nullptr, {});
    Graph graph(device_, inputs, {}, 8192);
    graph.output("y", build(graph), rank);
    graph.finish();
    return graph.run(inputs, nullptr).at("y");
  }

  /// With `adapters`, pairs of two of the weights, beside the weight `name`; by the CPU's kernels or by ggml's operations.
  HostTensor run_adapted(const HostTensors& inputs, int rank, const std::string& name,
                         const std::vector<std::pair<std::string, float>>& adapters, bool by_kernels,
                         const std::function<ggml_tensor*(Graph&)>& build) {
    store_->load(device_, nullptr, {});
    TensorSource adapted{name, "", 0, 0, Type::f32, {}, Type::f32, {}};
    for (const auto& [prefix, scale] : adapters)
      adapted.adapters.push_back({source(prefix + ".down"), source(prefix + ".up"), scale});
    const LowRankWeights added(device_, *store_, {adapted}, nullptr);
    Graph graph(device_, inputs, {}, 8192,
                by_kernels ? make_kernel_ops(cpu_kernels(true), device_, nullptr, &added) : make_composed_ops(&added));
    graph.output("y", build(graph), rank);
    graph.finish();
    return graph.run(inputs, nullptr).at("y");
  }

  TensorSource source(const std::string& name) const {
    return *std::find_if(sources_.begin(), sources_.end(), [&](const TensorSource& s) { return s.name == name; });
  }

  /// On how many of two threads a graph of CPU kernels runs.
  int thread_count(const HostTensors& inputs, const std::function<ggml_tensor*(Graph&)>& build) {
    store_->load(device_, nullptr, {});
    Graph graph(device_, inputs, {}, 64, make_kernel_ops(cpu_kernels(), device_, nullptr));
    graph.output("y", build(graph), 3);
    return graph.thread_count();
  }

 private:
  Device device_;
  std::vector<TensorSource> sources_;
  std::unique_ptr<WeightStore> store_;
};

HostTensor naive_conv2d(const HostTensor& x, const HostTensor& weight, const HostTensor& bias,
                        const Conv2d::Options& options) {
  const int64_t batch = x.shape[0], in = x.shape[1], height = x.shape[2], width = x.shape[3];
  const int64_t out = weight.shape[0], kernel = weight.shape[2];
  const int64_t padding = options.padding_before + options.padding_after;
  HostTensor y;
  y.shape = {batch, out, (height + padding - kernel) / options.stride + 1,
             (width + padding - kernel) / options.stride + 1};
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t o = 0; o < out; ++o)
      for (int64_t oy = 0; oy < y.shape[2]; ++oy)
        for (int64_t ox = 0; ox < y.shape[3]; ++ox) {
          double sum = bias.f32[o];
          for (int64_t i = 0; i < in; ++i)
            for (int64_t ky = 0; ky < kernel; ++ky)
              for (int64_t kx = 0; kx < kernel; ++kx) {
                const int64_t iy = oy * options.stride + ky - options.padding_before;
                const int64_t ix = ox * options.stride + kx - options.padding_before;
                if (iy < 0 || iy >= height || ix < 0 || ix >= width) continue;
                sum += static_cast<double>(x.f32[((b * in + i) * height + iy) * width + ix]) *
                       weight.f32[((o * in + i) * kernel + ky) * kernel + kx];
              }
          y.f32.push_back(static_cast<float>(sum));
        }
  return y;
}

void check_conv2d(const char* what, const std::vector<int64_t>& shape, int64_t out, int kernel,
                  const Conv2d::Options& options) {
  const HostTensor x = random_tensor(shape, 1);
  const HostTensors weights{{"weight", random_tensor({out, shape[1], kernel, kernel}, 2)},
                            {"bias", random_tensor({out}, 3)}};
  LayerRun layer(weights);
  const Conv2d conv(layer.weights(), shape[1], out, kernel, options);
  const HostTensor y = layer.run({{"x", x}}, 4, [&](Graph& g) { return conv.forward(g, g.image_input("x")); });
  const HostTensor expected = naive_conv2d(x, weights.at("weight"), weights.at("bias"), options);
  const double error = relative_error(y, expected);
  CHECK_MESSAGE(error < 1e-6, std::string(what) + ": relative error " + std::to_string(error));
}

/// Mean 0 and variance 1 within each group of channels of each sample.
HostTensor naive_group_norm(const HostTensor& x, int64_t groups, double eps) {
  HostTensor y = x;
  const int64_t batch = x.shape[0], size = element_count(x.shape) / (batch * groups);
  for (int64_t i = 0; i < batch * groups; ++i) {
    double sum = 0, squares = 0;
    for (int64_t j = 0; j < size; ++j) sum += x.f32[i * size + j];
    const double mean = sum / size;
    for (int64_t j = 0; j < size; ++j) squares += std::pow(x.f32[i * size + j] - mean, 2);
    for (int64_t j = 0; j < size; ++j) {
      y.f32[i * size + j] = static_cast<float>((x.f32[i * size + j] - mean) / std::sqrt(squares / size + eps));
    }
  }
  return y;
}

/// f(value, sample, channel, position) for every value of an NCHW image.
HostTensor map_image(const HostTensor& x, const std::function<double(double, int64_t, int64_t, int64_t)>& f) {
  HostTensor y = x;
  const int64_t channels = x.shape[1], pixels = x.shape[2] * x.shape[3];
  for (size_t i = 0; i < x.f32.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i);
    y.f32[i] = static_cast<float>(f(x.f32[i], at / pixels / channels, at / pixels % channels, at % pixels));
  }
  return y;
}

double silu(double x) { return x / (1 + std::exp(-x)); }

HostTensor naive_attention(const HostTensor& q, const HostTensor& k, const HostTensor& v, int64_t heads,
                           const HostTensor* mask) {
  const int64_t batch = q.shape[0], queries = q.shape[1], keys = k.shape[1];
  const int64_t channels = q.shape[2], d = channels / heads;
  HostTensor y = q;
  std::vector<double> weights(keys);
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < queries; ++i) {
        double total = 0;
        for (int64_t j = 0; j < keys; ++j) {
          double dot = 0;
          for (int64_t e = 0; e < d; ++e) {
            dot += static_cast<double>(q.f32[(b * queries + i) * channels + h * d + e]) *
                   k.f32[(b * keys + j) * channels + h * d + e];
          }
          weights[j] = std::exp(dot / std::sqrt(d) + (mask ? mask->f32[(b * queries + i) * keys + j] : 0));
          total += weights[j];
        }
        for (int64_t e = 0; e < d; ++e) {
          double sum = 0;
          for (int64_t j = 0; j < keys; ++j) sum += weights[j] / total * v.f32[(b * keys + j) * channels + h * d + e];
          y.f32[(b * queries + i) * channels + h * d + e] = static_cast<float>(sum);
        }
      }
  return y;
}

}  // namespace

TEST(conv2d_matches_plain_loops) {
  check_conv2d("3x3", {2, 5, 7, 6}, 4, 3, {1, 1, 1, true});
  check_conv2d("3x3 on one pixel", {1, 8, 1, 1}, 4, 3, {1, 1, 1, true});
  check_conv2d("1x1", {2, 6, 5, 3}, 7, 1, {1, 0, 0, true});
  check_conv2d("5x5", {1, 3, 9, 8}, 2, 5, {1, 2, 2, true});
  check_conv2d("stride 2, padded on both sides", {2, 4, 8, 10}, 3, 3, {2, 1, 1, true});
  check_conv2d("stride 2, padded right and below", {1, 4, 8, 9}, 3, 3, {2, 0, 1, true});
  check_conv2d("patches", {1, 3, 28, 28}, 8, 14, {14, 0, 0, true});
}

TEST(conv2d_in_parts_matches_plain_loops) {
  // 192 * 192 rows of 9 * 64 float32 are 85 MB: more than one part.
  check_conv2d("large image", {1, 64, 192, 192}, 3, 3, {1, 1, 1, true});
}

TEST(conv2d_accepts_kernels_as_matrices) {
  const HostTensor x = random_tensor({1, 4, 5, 5}, 1);
  const HostTensor kernel = random_tensor({6, 4, 3, 3}, 2), bias = random_tensor({6}, 3);
  HostTensor matrix = kernel;
  matrix.shape = {6, 36};
  for (int64_t o = 0; o < 6; ++o)
    for (int64_t i = 0; i < 4; ++i)
      for (int64_t tap = 0; tap < 9; ++tap) matrix.f32[o * 36 + tap * 4 + i] = kernel.f32[o * 36 + i * 9 + tap];
  LayerRun layer({{"weight", matrix}, {"bias", bias}});
  const Conv2d conv(layer.weights(), 4, 6, 3);
  const HostTensor y = layer.run({{"x", x}}, 4, [&](Graph& g) { return conv.forward(g, g.image_input("x")); });
  CHECK(relative_error(y, naive_conv2d(x, kernel, bias, {1, 1, 1, true})) < 1e-6);
}

TEST(group_norm_matches_plain_loops) {
  // A mean far from 0 shows whether the variance is computed exactly.
  const HostTensor x = random_tensor({2, 12, 5, 7}, 1, 30);
  const HostTensor weight = random_tensor({12}, 2), bias = random_tensor({12}, 3);
  const HostTensor scale_shift = random_tensor({2, 24}, 4);
  for (const int groups : {1, 3, 4, 12}) {
    LayerRun layer({{"weight", weight}, {"bias", bias}});
    const Norm2d norm(layer.weights(), 12, {groups, 1e-5f, 0});
    const HostTensor y = layer.run({{"x", x}, {"scale_shift", scale_shift}}, 4, [&](Graph& g) {
      ImageInput input(g.image_input("x"));
      input.norm = norm.with(g, nullptr);
      input.scale_shift = g.input("scale_shift");
      input.silu = true;
      return g.ops().image(g, input);
    });
    const HostTensor expected =
        map_image(naive_group_norm(x, groups, 1e-5), [&](double value, int64_t b, int64_t c, int64_t) {
          const double affine = value * weight.f32[c] + bias.f32[c];
          return silu(affine * (1 + scale_shift.f32[b * 24 + c]) + scale_shift.f32[b * 24 + 12 + c]);
        });
    const double error = relative_error(y, expected);
    CHECK_MESSAGE(error < 1e-5, std::to_string(groups) + " groups: relative error " + std::to_string(error));
  }
}

TEST(group_norm_refuses_groups_that_do_not_divide) {
  LayerRun layer({{"weight", random_tensor({12}, 1)}, {"bias", random_tensor({12}, 2)}});
  CHECK_THROWS(unsupported_model, "expected a divisor of the 12 channels for norm_num_groups but received 5",
               Norm2d(layer.weights(), 12, {5, 1e-5f, 0}));
}

TEST(spatial_norm_matches_plain_loops) {
  const HostTensor x = random_tensor({2, 32, 6, 8}, 1), zq = random_tensor({2, 4, 3, 4}, 2);
  HostTensors weights{{"norm_layer.weight", random_tensor({32}, 3)}, {"norm_layer.bias", random_tensor({32}, 4)}};
  for (const char* conv : {"conv_y", "conv_b"}) {
    weights[std::string(conv) + ".weight"] = random_tensor({32, 4, 1, 1}, 5);
    weights[std::string(conv) + ".bias"] = random_tensor({32}, 6);
  }
  weights["conv_b.bias"] = random_tensor({32}, 7);
  LayerRun layer(weights);
  Norm2d::Options options;
  options.zq_channels = 4;
  const Norm2d norm(layer.weights(), 32, options);
  const HostTensor y = layer.run({{"x", x}, {"zq", zq}}, 4, [&](Graph& g) {
    ImageInput input(g.image_input("x"));
    input.norm = norm.with(g, g.image_input("zq"));
    return g.ops().image(g, input);
  });
  const auto modulation = [&](const std::string& name, int64_t b, int64_t c, int64_t pixel) {
    double sum = weights[name + ".bias"].f32[c];
    const int64_t at = pixel / 8 / 2 * 4 + pixel % 8 / 2;  // nearest of the latents' 3 x 4 pixels
    for (int64_t i = 0; i < 4; ++i) sum += weights[name + ".weight"].f32[c * 4 + i] * zq.f32[(b * 4 + i) * 12 + at];
    return sum;
  };
  const HostTensor expected =
      map_image(naive_group_norm(x, 32, 1e-6), [&](double value, int64_t b, int64_t c, int64_t pixel) {
        const double affine = value * weights["norm_layer.weight"].f32[c] + weights["norm_layer.bias"].f32[c];
        return affine * modulation("conv_y", b, c, pixel) + modulation("conv_b", b, c, pixel);
      });
  CHECK(relative_error(y, expected) < 1e-5);
}

TEST(only_graphs_with_much_to_compute_run_on_all_threads) {
  for (const auto& [rows, threads] : {std::pair<int64_t, int>{4, 1}, {4096, 2}}) {
    LayerRun layer({{"weight", random_tensor({256, 256}, 1)}, {"bias", random_tensor({256}, 2)}});
    const Linear linear(layer.weights(), 256, 256);
    const auto build = [&](Graph& g) { return linear.forward(g, g.input("x")); };
    CHECK(layer.thread_count({{"x", random_tensor({1, rows, 256}, 3)}}, build) == threads);
  }
}

namespace {

void add_conv(HostTensors& weights, const std::string& name, const std::vector<int64_t>& shape, unsigned seed) {
  HostTensor weight = random_tensor(shape, seed);
  const float fan_in = static_cast<float>(shape[1] * shape[2] * shape[3]);
  for (float& value : weight.f32) value /= std::sqrt(fan_in);
  weights[name + ".weight"] = weight;
  weights[name + ".bias"] = random_tensor({shape[0]}, seed + 1);
}

void add_spatial_norm(HostTensors& weights, const std::string& name, int64_t channels, unsigned seed) {
  weights[name + ".norm_layer.weight"] = random_tensor({channels}, seed, 1);
  weights[name + ".norm_layer.bias"] = random_tensor({channels}, seed + 1);
  add_conv(weights, name + ".conv_y", {channels, 4, 1, 1}, seed + 2);
  add_conv(weights, name + ".conv_b", {channels, 4, 1, 1}, seed + 4);
}

}  // namespace

/// Of ggml's operations, as on a GPU; with the CPU kernels MoVQ's decoder and encoder are tested whole.
TEST(resnets_in_tiles_match_whole_images) {
  HostTensors weights;
  add_conv(weights, "upsampler", {64, 64, 3, 3}, 1);
  add_spatial_norm(weights, "resnets.0.norm1", 64, 10);
  add_conv(weights, "resnets.0.conv1", {32, 64, 3, 3}, 20);
  add_conv(weights, "resnets.0.conv_shortcut", {32, 64, 1, 1}, 22);
  add_spatial_norm(weights, "resnets.1.norm1", 32, 30);
  add_conv(weights, "resnets.1.conv1", {32, 32, 3, 3}, 40);
  for (const char* resnet : {"resnets.0", "resnets.1"}) {
    add_spatial_norm(weights, std::string(resnet) + ".norm2", 32, 50);
    add_conv(weights, std::string(resnet) + ".conv2", {32, 32, 3, 3}, 60);
  }
  LayerRun layer(weights);
  Norm2d::Options norm;
  norm.zq_channels = 4;
  const Conv2d upsampler(layer.weights()["upsampler"], 64, 64, 3);
  const ResnetBlock2D first(layer.weights()["resnets"][0], 64, 32, {norm});
  const ResnetBlock2D second(layer.weights()["resnets"][1], 32, 32, {norm});

  const HostTensors inputs{{"x", random_tensor({1, 64, 42, 3}, 7, 2)}, {"zq", random_tensor({1, 4, 21, 3}, 8)}};
  const HostTensor both = layer.run(inputs, 4, [&](Graph& g) {
    ImageInput enlarged(g.image_input("x"));
    enlarged.resample = Resample::nearest_2x;
    ggml_tensor* zq = g.image_input("zq");
    ggml_tensor* whole = upsampler.forward(g, enlarged);
    for (const ResnetBlock2D* resnet : {&first, &second}) whole = resnet->forward(g, whole, {}, zq);
    const Tiles tiles(g, zq);
    const Tiles::Source source{{enlarged.image.x}, {{&upsampler, nullptr, nullptr, Resample::nearest_2x}}};
    ggml_tensor* tiled = tiles.joined(tiles.resnet(second, {tiles.resnet(first, source)}));
    return ggml_concat(g.context(), whole, tiled, 3);
  });
  HostTensor whole{{1, 32, 84, 6}, {}, {}, false}, tiled = whole;
  const auto middle = both.f32.begin() + static_cast<std::ptrdiff_t>(both.f32.size() / 2);
  whole.f32.assign(both.f32.begin(), middle);
  tiled.f32.assign(middle, both.f32.end());
  const double error = relative_error(tiled, whole);
  CHECK_MESSAGE(error < 1e-5, "resnets in tiles: relative error " + std::to_string(error));
}

namespace {

ggml_tensor* attend(Graph& g, int64_t heads, ggml_tensor* mask) {
  const auto input = [&](const char* name) { return Operand(g.input(name)); };
  return g.ops().attention(g, {input("q"), {input("k"), input("v")}, heads, mask, {}}).tensor;
}

}  // namespace

TEST(attention_matches_plain_loops) {
  const HostTensor q = random_tensor({2, 9, 12}, 1), k = random_tensor({2, 13, 12}, 2);
  const HostTensor v = random_tensor({2, 13, 12}, 3), mask = random_tensor({2, 1, 9, 13}, 4);
  for (const int64_t heads : {1, 3, 4}) {
    for (const bool is_masked : {false, true}) {
      const HostTensor y = LayerRun({}).run({{"q", q}, {"k", k}, {"v", v}, {"mask", mask}}, 3, [&](Graph& g) {
        return attend(g, heads, is_masked ? g.input("mask") : nullptr);
      });
      const double error = relative_error(y, naive_attention(q, k, v, heads, is_masked ? &mask : nullptr));
      CHECK_MESSAGE(error < 1e-6, std::to_string(heads) + " heads: relative error " + std::to_string(error));
    }
  }
}

TEST(attention_in_parts_matches_plain_loops) {
  // 2 * 4300 * 4300 float32 scores are 148 MB: more than one part.
  const HostTensor q = random_tensor({2, 4300, 4}, 1), k = random_tensor({2, 4300, 4}, 2);
  const HostTensor v = random_tensor({2, 4300, 4}, 3), mask = random_tensor({2, 1, 4300, 4300}, 4);
  const HostTensor y = LayerRun({}).run({{"q", q}, {"k", k}, {"v", v}, {"mask", mask}}, 3, [&](Graph& g) {
    return attend(g, 1, g.input("mask"));
  });
  CHECK(relative_error(y, naive_attention(q, k, v, 1, &mask)) < 1e-5);
}

TEST(nearest_resize_picks_the_pixels_that_torch_picks) {
  const HostTensor x = random_tensor({2, 3, 4, 5}, 1);
  for (const auto& [height, width] : std::vector<std::pair<int64_t, int64_t>>{{8, 10}, {7, 9}, {3, 2}}) {
    const HostTensor y = LayerRun({}).run({{"x", x}}, 4, [&, w = width, h = height](Graph& g) {
      return nearest_resize(g, g.image_input("x"), w, h);
    });
    HostTensor expected;
    expected.shape = {2, 3, height, width};
    for (int64_t plane = 0; plane < 6; ++plane)
      for (int64_t i = 0; i < height; ++i)
        for (int64_t j = 0; j < width; ++j) {
          expected.f32.push_back(x.f32[(plane * 4 + i * 4 / height) * 5 + j * 5 / width]);
        }
    CHECK(largest_difference(y, expected) == 0);
  }
}

TEST(average_pool_takes_the_mean_of_squares) {
  const HostTensor x = random_tensor({2, 3, 4, 6}, 1);
  const HostTensor y =
      LayerRun({}).run({{"x", x}}, 4, [&](Graph& g) { return average_pool_2x2(g, g.image_input("x")); });
  HostTensor expected;
  expected.shape = {2, 3, 2, 3};
  for (int64_t plane = 0; plane < 6; ++plane)
    for (int64_t i = 0; i < 2; ++i)
      for (int64_t j = 0; j < 3; ++j) {
        const float* corner = x.f32.data() + (plane * 4 + 2 * i) * 6 + 2 * j;
        expected.f32.push_back((corner[0] + corner[1] + corner[6] + corner[7]) / 4);
      }
  CHECK(largest_difference(y, expected) < 1e-6);
}

TEST(activations_match_their_formulas) {
  const HostTensor x = random_tensor({1, 1000}, 1);
  const std::pair<const char*, double (*)(double)> cases[] = {
      {"silu", silu},
      {"gelu", [](double value) { return value * 0.5 * std::erfc(-value / std::sqrt(2.0)); }},
      {"quick_gelu", [](double value) { return value / (1 + std::exp(-1.702 * value)); }},
  };
  for (const auto& [name, formula] : cases) {
    const Activation activation = activation_from(Config("test", {{"act", std::string(name)}}), "act", "");
    const HostTensor y =
        LayerRun({}).run({{"x", x}}, 2, [&](Graph& g) { return activate(g, activation, g.input("x")); });
    HostTensor expected = x;
    for (float& value : expected.f32) value = static_cast<float>(formula(value));
    CHECK_MESSAGE(relative_error(y, expected) < 1e-6, name);
  }
  CHECK_THROWS(unsupported_model, "\"gelu_new\"",
               activation_from(Config("test", {{"act", std::string("gelu_new")}}), "act", ""));
}

/// weight + sum of scale * up x down, as rows of floats.
HostTensor merged(HostTensor weight, const HostTensors& weights, const std::vector<std::pair<std::string, float>>& adapters) {
  const int64_t out = weight.shape[0], in = element_count(weight.shape) / out;
  for (const auto& [prefix, scale] : adapters) {
    const HostTensor &down = weights.at(prefix + ".down"), &up = weights.at(prefix + ".up");
    const int64_t rank = down.shape[0];
    for (int64_t o = 0; o < out; ++o) {
      for (int64_t i = 0; i < in; ++i) {
        double sum = 0;
        for (int64_t r = 0; r < rank; ++r) sum += static_cast<double>(up.f32[o * rank + r]) * down.f32[r * in + i];
        weight.f32[o * in + i] += static_cast<float>(scale * sum);
      }
    }
  }
  return weight;
}

TEST(adapters_add_to_products_and_convolutions_what_merging_would) {
  HostTensors weights{{"fc.weight", random_tensor({10, 12}, 1)},  {"fc.bias", random_tensor({10}, 2)},
                      {"a.down", random_tensor({3, 12}, 3)},      {"a.up", random_tensor({10, 3}, 4)},
                      {"b.down", random_tensor({2, 12}, 5)},      {"b.up", random_tensor({10, 2}, 6)},
                      {"conv.weight", random_tensor({6, 4, 3, 3}, 7)}, {"conv.bias", random_tensor({6}, 8)},
                      {"c.down", random_tensor({2, 4, 3, 3}, 9)}, {"c.up", random_tensor({6, 2, 1, 1}, 10)}};
  const std::vector<std::pair<std::string, float>> two{{"a", 0.5f}, {"b", -2.0f}}, one{{"c", 0.7f}};
  HostTensors merged_weights = weights;
  merged_weights["fc.weight"] = merged(weights.at("fc.weight"), weights, two);
  merged_weights["conv.weight"] = merged(weights.at("conv.weight"), weights, one);
  const HostTensor rows = random_tensor({1, 5, 12}, 11), image = random_tensor({2, 4, 6, 5}, 12);
  for (const Activation activation : {Activation::none, Activation::gelu}) {
    const auto linear = [&](LayerRun& run) {
      const Linear fc(run.weights()["fc"], 12, 10);
      return [fc, activation](Graph& g) { return fc.forward(g, g.input("x"), activation); };
    };
    LayerRun plain(merged_weights);
    const HostTensor expected = plain.run({{"x", rows}}, 3, linear(plain));
    for (const bool by_kernels : {false, true}) {
      LayerRun run(weights);
      CHECK(largest_difference(run.run_adapted({{"x", rows}}, 3, "fc.weight", two, by_kernels, linear(run)), expected) < 1e-4);
    }
  }
  for (const int stride : {1, 2}) {
    const auto convolve = [&](LayerRun& run) {
      const Conv2d conv(run.weights()["conv"], 4, 6, 3, {stride, 1, 1});
      return [conv](Graph& g) { return conv.forward(g, ImageInput(g.image_input("x"))); };
    };
    LayerRun plain(merged_weights);
    const HostTensor expected = plain.run({{"x", image}}, 4, convolve(plain));
    for (const bool by_kernels : {false, true}) {
      LayerRun run(weights);
      CHECK(largest_difference(run.run_adapted({{"x", image}}, 4, "conv.weight", one, by_kernels, convolve(run)), expected) < 1e-4);
    }
  }
}

TEST(adapters_that_do_not_fit_are_refused) {
  const HostTensors weights{{"fc.weight", random_tensor({10, 12}, 1)}, {"fc.bias", random_tensor({10}, 2)},
                            {"a.down", random_tensor({3, 11}, 3)},     {"a.up", random_tensor({10, 3}, 4)},
                            {"b.down", random_tensor({3, 12}, 3)},     {"b.up", random_tensor({10, 2}, 4)}};
  const HostTensor rows = random_tensor({1, 5, 12}, 11);
  for (const char* name : {"a", "b"}) {
    LayerRun run(weights);
    const Linear fc(run.weights()["fc"], 12, 10);
    CHECK_THROWS(shape_mismatch, "do not fit", run.run_adapted({{"x", rows}}, 3, "fc.weight", {{name, 1.0f}}, true,
                 [&](Graph& g) { return fc.forward(g, g.input("x")); }));
    LayerRun other(weights);
    const Linear same(other.weights()["fc"], 12, 10);
    CHECK_THROWS(invalid_argument, "fc.bias", other.run_adapted({{"x", rows}}, 3, "fc.bias", {{name, 1.0f}}, true,
                 [&](Graph& g) { return same.forward(g, g.input("x")); }));
  }
}

TEST(timestep_sinusoids_follow_flip_and_shift) {
  const HostTensor timesteps{{2}, {}, {981, 3}, true};
  const HostTensor cos_first = timestep_sinusoids(timesteps, 2, 8, {true, 0});
  const HostTensor sin_first = timestep_sinusoids(timesteps, 2, 8, {false, 1});
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t i = 0; i < 4; ++i) {
      const double timestep = timesteps.i32[b];
      const double angle = timestep * std::pow(10000.0, -i / 4.0), shifted = timestep * std::pow(10000.0, -i / 3.0);
      CHECK_CLOSE(cos_first.f32[b * 8 + i], std::cos(angle), 1e-4);
      CHECK_CLOSE(cos_first.f32[b * 8 + 4 + i], std::sin(angle), 1e-4);
      CHECK_CLOSE(sin_first.f32[b * 8 + i], std::sin(shifted), 1e-4);
      CHECK_CLOSE(sin_first.f32[b * 8 + 4 + i], std::cos(shifted), 1e-4);
    }
  }
}
