// Qwen2.5-VL's vision tower (transformers models/qwen2_5_vl, Qwen2_5_VisionTransformerPretrainedModel;
// https://arxiv.org/abs/2502.13923).
//
// Easy to get wrong:
// - Patches come in units of 2 x 2, unit by unit in reading order. Inside, units are in the order of the windows that
//   they attend in; windows at the right and lower edge are smaller. The result is in reading order again.
// - Rotation pairs channel i with i + d / 2; half of the angles belong to a patch's row, half to its column.
// - A picture's patches hold the same frame twice.
#include "models/qwen2_5_vl_vision.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "models/config_checks.h"

namespace kandinsky {

namespace {

constexpr float norm_eps = 1e-6f;
// Scores of all pairs of patches are kept: 16,384 are a picture of 1792 x 1792 pixels, and 4,096 tokens of a text.
constexpr int64_t max_patches = 16384;

struct Grid {
  int64_t rows, columns;  // in patches
};

/// The units in the order of their windows, as places in reading order, and how many each window has.
struct Windows {
  std::vector<int64_t> units, sizes;
};

Windows windows_of(const Grid& grid, const VisionConfig& c) {
  const int64_t rows = grid.rows / c.merge, columns = grid.columns / c.merge;
  Windows result;
  for (int64_t top = 0; top < rows; top += c.window) {
    for (int64_t left = 0; left < columns; left += c.window) {
      const int64_t bottom = std::min(rows, top + c.window), right = std::min(columns, left + c.window);
      for (int64_t row = top; row < bottom; ++row) {
        for (int64_t column = left; column < right; ++column) result.units.push_back(row * columns + column);
      }
      result.sizes.push_back((bottom - top) * (right - left));
    }
  }
  return result;
}

/// Additive, [patches, patches]: minus infinity between windows.
HostTensor window_mask(const Windows& windows, int64_t patches_per_unit) {
  const int64_t patches = static_cast<int64_t>(windows.units.size()) * patches_per_unit;
  HostTensor mask;
  mask.shape = {patches, patches};
  mask.f32.assign(patches * patches, -INFINITY);
  int64_t first = 0;
  for (const int64_t units : windows.sizes) {
    const int64_t count = units * patches_per_unit;
    for (int64_t query = first; query < first + count; ++query) {
      std::fill_n(mask.f32.begin() + query * patches + first, count, 0.0f);
    }
    first += count;
  }
  return mask;
}

}  // namespace

VisionConfig read_vision_config(const Config& config) {
  choice_from(config, "hidden_act", {"silu"}, "silu");
  VisionConfig c;
  c.channels = size_from(config, "hidden_size");
  c.hidden_channels = size_from(config, "intermediate_size");
  c.depth = count_from(config, "depth");
  c.heads = size_from(config, "num_heads");
  c.out_channels = size_from(config, "out_hidden_size");
  c.merge = count_from(config, "spatial_merge_size", 2);
  const int64_t patch = count_from(config, "patch_size", 14);
  const char* colours = config.has("in_chans") ? "in_chans" : "in_channels";
  c.patch_values = count_from(config, colours, 3) * count_from(config, "temporal_patch_size", 2) * patch * patch;
  c.window = count_from(config, "window_size", 112) / c.merge / patch;
  c.theta = static_cast<float>(config.real("rope_parameters.rope_theta", 10000));
  const std::vector<int64_t> whole = config.integers("fullatt_block_indexes");
  for (int64_t i = 0; i < c.depth; ++i) c.sees_all.push_back(std::find(whole.begin(), whole.end(), i) != whole.end());
  if (!(c.theta > 0)) {
    fail(ErrorCode::unsupported_model, "{} config: expected a positive rope_theta for vision_config but received {}",
         config.component(), c.theta);
  }
  if (c.channels % c.heads != 0 || c.channels / c.heads % 4 != 0 || c.window < 1) {
    fail(ErrorCode::unsupported_model,
         "{} config: expected num_heads that divide the hidden_size ({}) of vision_config into multiples of 4, and a "
         "window_size of at least one unit, but received {} and {}",
         config.component(), c.channels, c.heads, config.integer("window_size", 112));
  }
  return c;
}

VisionTower::Block::Block(const Weights& w, const VisionConfig& c)
    : heads(c.heads),
      norm1(w["norm1"], c.channels, norm_eps),
      norm2(w["norm2"], c.channels, norm_eps),
      qkv(w["attn"]["qkv"], c.channels, 3 * c.channels),
      proj(w["attn"]["proj"], c.channels, c.channels),
      gate_proj(w["mlp"]["gate_proj"], c.channels, c.hidden_channels),
      up_proj(w["mlp"]["up_proj"], c.channels, c.hidden_channels),
      down_proj(w["mlp"]["down_proj"], c.hidden_channels, c.channels) {}

/// x: {C, patches}
ggml_tensor* VisionTower::Block::forward(Graph& g, ggml_tensor* x, const Rotation& rotation, ggml_tensor* mask) const {
  ggml_context* c = g.context();
  Ops& ops = g.ops();
  const int64_t channels = x->ne[0], patches = x->ne[1];
  ggml_tensor* all = qkv.forward(g, norm1.forward(g, x));
  const auto third = [&](int64_t which) {
    return ggml_cont(c, ggml_view_2d(c, all, channels, patches, all->nb[1], which * channels * sizeof(float)));
  };
  const auto turned = [&](ggml_tensor* y) {
    y = rotation.halves(g, ggml_reshape_4d(c, y, channels / heads, heads, patches, 1));
    return ops.operand(g, ggml_reshape_3d(c, y, channels, patches, 1));
  };
  const Operand q = turned(third(0)), k = turned(third(1));
  const Operand v = ops.operand(g, ggml_reshape_3d(c, third(2), channels, patches, 1));
  x = ggml_reshape_3d(c, x, channels, patches, 1);
  x = proj.forward(g, ops.attention(g, {q, {k, v}, heads, mask}), Activation::none, x);
  const Operand y = ops.operand(g, norm2.forward(g, x));
  ggml_tensor* gated = ggml_mul(c, gate_proj.forward(g, y, Activation::silu), up_proj.forward(g, y));
  return ggml_reshape_2d(c, down_proj.forward(g, gated, Activation::none, x), channels, patches);
}

VisionTower::VisionTower(const Weights& w, const VisionConfig& c)
    : config_(c),
      merger_norm_(w["merger"]["ln_q"], c.channels, norm_eps),
      merger_in_(w["merger"]["mlp"][0], c.merge * c.merge * c.channels, c.merge * c.merge * c.channels),
      merger_out_(w["merger"]["mlp"][2], c.merge * c.merge * c.channels, c.out_channels) {
  // A convolution over two frames whose patches do not overlap, so that its kernel is a matrix as it lies.
  patch_embed_ = Linear(w["patch_embed"]["proj"].at_least(Precision::half), c.patch_values, c.channels, false);
  for (int64_t i = 0; i < c.depth; ++i) blocks_.emplace_back(w["blocks"][i], c);
}

HostTensors VisionTower::prepare(Inputs& in, const std::string& component) const {
  const HostTensor& pixels = in.real("pixel_values", {Inputs::any, config_.patch_values});
  const std::vector<int32_t>& thw = in.integers("image_grid_thw", {1, 3}).i32;
  const Grid grid{thw[1], thw[2]};
  const int64_t patches = pixels.shape[0], merge = config_.merge;
  if (thw[0] != 1 || grid.rows < 1 || grid.columns < 1 || grid.rows % merge != 0 || grid.columns % merge != 0 ||
      patches > max_patches || grid.rows > max_patches || grid.rows * grid.columns != patches) {
    fail(ErrorCode::shape_mismatch,
         "{}: expected one frame of rows and columns in multiples of {} with at most {} patches, as many as pixel_values "
         "has, but received {}, {}, {} and {}",
         component, merge, max_patches, thw[0], grid.rows, grid.columns, patches);
  }
  const Windows windows = windows_of(grid, config_);
  const int64_t per_unit = merge * merge, columns = grid.columns / merge;
  const int64_t count = config_.channels / config_.heads / 4;
  HostTensors prepared;
  HostTensor& ordered = prepared["patches"];
  ordered.shape = pixels.shape;
  HostTensor& places = prepared["places"];
  places.is_int = true;
  places.shape = {static_cast<int64_t>(windows.units.size())};
  places.i32.resize(windows.units.size());
  std::vector<float> angles;
  for (size_t i = 0; i < windows.units.size(); ++i) {
    const int64_t unit = windows.units[i];
    places.i32[unit] = static_cast<int32_t>(i);
    const auto first = pixels.f32.begin() + unit * per_unit * config_.patch_values;
    ordered.f32.insert(ordered.f32.end(), first, first + per_unit * config_.patch_values);
    for (int64_t patch = 0; patch < per_unit; ++patch) {
      const int64_t positions[] = {unit / columns * merge + patch / merge, unit % columns * merge + patch % merge};
      for (const int64_t position : positions) {
        for (int64_t f = 0; f < count; ++f) {
          const float exponent = static_cast<float>(2 * f) / static_cast<float>(2 * count);
          angles.push_back(static_cast<float>(position) / std::pow(config_.theta, exponent));
        }
      }
    }
  }
  add_rotation(prepared, "vision", angles, patches);
  const std::vector<bool>& all = config_.sees_all;
  if (std::find(all.begin(), all.end(), false) != all.end()) prepared["window_mask"] = window_mask(windows, per_unit);
  return prepared;
}

ggml_tensor* VisionTower::forward(Graph& g) const {
  ggml_context* c = g.context();
  const Rotation rotation(g, "vision");
  ggml_tensor* x = patch_embed_.forward(g, g.input("patches"));
  for (int64_t i = 0; i < config_.depth; ++i) {
    x = blocks_[i].forward(g, x, rotation, config_.sees_all[i] ? nullptr : g.input("window_mask"));
    g.tap("model.visual.blocks." + std::to_string(i), x, 2);
  }
  x = merger_norm_.forward(g, x);
  const int64_t per_unit = config_.merge * config_.merge;
  x = ggml_reshape_2d(c, x, per_unit * x->ne[0], x->ne[1] / per_unit);
  x = merger_out_.forward(g, merger_in_.forward(g, x, Activation::gelu));
  return ggml_get_rows(c, x, g.input("places"));
}

}  // namespace kandinsky
