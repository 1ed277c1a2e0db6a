#include "layers/time_embedding.h"

#include <cmath>

namespace kandinsky {

HostTensor timestep_sinusoids(const HostTensor& timesteps, int64_t batch, int64_t channels,
                              const TimestepOptions& options) {
  const int64_t half = channels / 2;
  HostTensor result;
  result.shape = {batch, channels};
  result.f32.resize(batch * channels);
  const size_t count = timesteps.is_int ? timesteps.i32.size() : timesteps.f32.size();
  for (int64_t b = 0; b < batch; ++b) {
    const size_t at = count == 1 ? 0 : b;
    const float timestep = timesteps.is_int ? static_cast<float>(timesteps.i32[at]) : timesteps.f32[at];
    float* row = result.f32.data() + b * channels;
    for (int64_t i = 0; i < half; ++i) {
      const float exponent = static_cast<float>(-std::log(10000.0)) * static_cast<float>(i) /
                             static_cast<float>(half - options.freq_shift);
      const float angle = timestep * std::exp(exponent);
      row[options.flip_sin_to_cos ? i : half + i] = std::cos(angle);
      row[options.flip_sin_to_cos ? half + i : i] = std::sin(angle);
    }
    // An odd width ends with a zero.
  }
  return result;
}

}  // namespace kandinsky
