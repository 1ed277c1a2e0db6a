// Rotary position embedding (https://arxiv.org/abs/2104.09864): pairs of a head's channels are turned by angles that grow
// with the token's position.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"

namespace kandinsky {

/// Angles of tokens, row by row, as the cosines and sines that a graph reads: inputs `name`_cos and `name`_sin,
/// [tokens, angles]. In float32, as torch has them.
void add_rotation(HostTensors& inputs, const std::string& name, const std::vector<float>& angles, int64_t tokens);

struct Rotation {
  /// Of the inputs that add_rotation made.
  Rotation(Graph& g, const std::string& name);

  /// x: {d, heads, tokens, B}, contiguous, with 2 * angles = d. Channel i is paired with i + d / 2.
  ggml_tensor* halves(Graph& g, ggml_tensor* x) const;
  /// Channel 2 i is paired with 2 i + 1. The result has the first of all pairs, then the second: scores do not depend on
  /// the order as long as queries and keys share it.
  ggml_tensor* adjacent(Graph& g, ggml_tensor* x) const;

  ggml_tensor *cos, *sin;  // {d / 2, 1, tokens}
};

}  // namespace kandinsky
