// Changing the size of channels-last images.
#pragma once

#include "graph/graph.h"

namespace kandinsky {

/// x: ne = {C, W, H, B}, contiguous; returns {C, width, height, B}. Picks source pixels as torch's
/// interpolate(mode='nearest') does, also for sizes that are no multiples.
ggml_tensor* nearest_resize(Graph& g, ggml_tensor* x, int64_t width, int64_t height);

/// As torch's interpolate(mode='bilinear'). With `align_corners` the centres of the corner pixels stay where they are,
/// otherwise the corners of the image do.
ggml_tensor* bilinear_resize(Graph& g, ggml_tensor* x, int64_t width, int64_t height, bool align_corners);

/// Mean of each 2x2 square; W and H even.
ggml_tensor* average_pool_2x2(Graph& g, ggml_tensor* x);

}  // namespace kandinsky
