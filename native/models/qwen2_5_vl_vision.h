// The vision tower of Qwen2.5-VL: the half of models/qwen2_5_vl.cpp that sees pictures.
#pragma once

#include "layers/attention.h"
#include "layers/rotary.h"
#include "models/inputs.h"

namespace kandinsky {

struct VisionConfig {
  int64_t channels, hidden_channels, depth, heads, patch_values, out_channels;
  int64_t merge;               // patches of a unit's side; a unit becomes one token of the text
  int64_t window;              // units of a window's side
  float theta;
  std::vector<bool> sees_all;  // by block: whether it attends to the whole picture, or to windows
};

/// `config`: the section vision_config.
VisionConfig read_vision_config(const Config& config);

class VisionTower {
 public:
  VisionTower(const Weights& w, const VisionConfig& config);

  /// Takes "pixel_values" [patches, values] and "image_grid_thw" int32 [1, 3] and gives the graph's inputs.
  HostTensors prepare(Inputs& in, const std::string& component) const;
  /// Of the prepared inputs: {out_channels, units}, in reading order.
  ggml_tensor* forward(Graph& g) const;

  const VisionConfig& config() const { return config_; }

 private:
  struct Block {
    Block(const Weights& w, const VisionConfig& c);
    ggml_tensor* forward(Graph& g, ggml_tensor* x, const Rotation& rotation, ggml_tensor* mask) const;

    int64_t heads;
    RmsNorm norm1, norm2;
    Linear qkv, proj, gate_proj, up_proj, down_proj;
  };

  VisionConfig config_;
  Linear patch_embed_;
  std::vector<Block> blocks_;
  RmsNorm merger_norm_;
  Linear merger_in_, merger_out_;
};

}  // namespace kandinsky
