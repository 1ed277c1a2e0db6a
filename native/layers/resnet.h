// Residual block of two convolutions (diffusers' ResnetBlock2D and, with SpatialNorm, ResnetBlockCondNorm2D).
#pragma once

#include <optional>

#include "layers/linear.h"
#include "layers/norm.h"

namespace kandinsky {

struct ResnetBlock2D {
  struct Options {
    Norm2d::Options norm;
    int64_t temb_channels = 0;  // > 0: the time embedding scales and shifts after norm2 ("scale_shift")
    Resample resample = Resample::none;
    Sensitivity sensitivity = Sensitivity::inner;
  };

  ResnetBlock2D(const Weights& w, int64_t in, int64_t out, const Options& options);

  /// x: `in` channels; silu_temb: SiLU(time embedding) {temb_channels, B}, or nothing; zq: see Norm2d.
  ggml_tensor* forward(Graph& g, const Image& x, Operand silu_temb, ggml_tensor* zq) const;

  Norm2d norm1, norm2;
  Conv2d conv1, conv2;
  std::optional<Linear> time_emb_proj;
  std::optional<Conv2d> conv_shortcut;
  Resample resample;
};

}  // namespace kandinsky
