// Timesteps as vectors (diffusers' Timesteps and TimestepEmbedding).
#pragma once

#include "layers/activation.h"
#include "layers/linear.h"

namespace kandinsky {

struct TimestepOptions {
  bool flip_sin_to_cos = false;  // cosines first
  double freq_shift = 0;
};

/// Sinusoids of `timesteps` (one, or one for each of `batch`): shape [batch, channels]. On the host and in torch's
/// float32 steps: angles reach 1000, where a differently rounded frequency shows in the fourth digit.
HostTensor timestep_sinusoids(const HostTensor& timesteps, int64_t batch, int64_t channels,
                              const TimestepOptions& options);

struct TimestepEmbedding {
  TimestepEmbedding(const Weights& w, int64_t in, int64_t hidden, int64_t out, Activation activation)
      : linear_1(w["linear_1"], in, hidden), linear_2(w["linear_2"], hidden, out), activation(activation) {}

  ggml_tensor* forward(Graph& g, ggml_tensor* sinusoids) const {
    const Operand x = g.ops().operand(g, sinusoids);
    return linear_2.forward(g, g.ops().linear_operand(g, linear_1.product, x, activation));
  }

  Linear linear_1, linear_2;
  Activation activation;
};

}  // namespace kandinsky
