#include "layers/norm.h"

#include "core/error.h"

namespace kandinsky {

namespace {

GroupNormalization group_norm(const Weights& w, int64_t channels, int groups, float eps) {
  if (groups <= 0 || channels % groups != 0) {
    fail(ErrorCode::unsupported_model, "{}: expected a divisor of the {} channels for norm_num_groups but received {}",
         w.where(), channels, groups);
  }
  GroupNormalization norm;
  norm.gamma = w["weight"].get({channels});
  norm.beta = w["bias"].get({channels});
  norm.groups = groups;
  norm.eps = eps;
  return norm;
}

}  // namespace

Norm2d::Norm2d(const Weights& w, int64_t channels, const Options& options) : is_spatial(options.zq_channels > 0) {
  if (!is_spatial) {
    norm = group_norm(w, channels, options.groups, options.eps);
    return;
  }
  norm = group_norm(w["norm_layer"], channels, 32, 1e-6f);
  // A few latent channels become gain and offset of every normalized activation.
  conv_y = Conv2d(w["conv_y"].at_least(Precision::exact), options.zq_channels, channels, 1);
  conv_b = Conv2d(w["conv_b"].at_least(Precision::exact), options.zq_channels, channels, 1);
}

GroupNormalization Norm2d::with(Graph& g, ggml_tensor* zq, const GroupStatistics* statistics) const {
  GroupNormalization result = norm;
  result.statistics = statistics;
  if (!is_spatial) return result;
  // A 1x1 convolution commutes with nearest-neighbour enlarging: both run at latent size.
  result.spatial_scale = conv_y.forward(g, zq);
  result.spatial_shift = conv_b.forward(g, zq);
  return result;
}

}  // namespace kandinsky
