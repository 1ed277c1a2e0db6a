// What a network file provides: its weights (asked for in the constructor), its input checks and its graph. What runs
// it is models/loaded_network.cpp.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/host_tensor.h"
#include "core/weights.h"
#include "graph/graph.h"

namespace kandinsky {

class Model {
 public:
  virtual ~Model() = default;

  virtual std::vector<std::string> methods() const { return {"forward"}; }

  /// Checks the caller's inputs and turns them into the graph's: shapes, ranges, and what is easier on the host
  /// (sinusoids, masks). Throws invalid_argument or shape_mismatch.
  virtual HostTensors prepare(const std::string& method, const HostTensors& inputs) const = 0;

  /// Builds the graph for prepared inputs; all outputs through Graph::output.
  virtual void build(const std::string& method, Graph& g) const = 0;

  /// Whether there is a second graph with the same results that takes less memory and more time, for a batch of one and
  /// without taps.
  virtual bool has_tiles() const { return false; }
  virtual void build_tiled(const std::string& /*method*/, Graph& /*g*/) const {}

  /// Whether activations must be float32 whatever the weights are.
  virtual bool needs_f32() const { return false; }

  /// Whether one call follows another with the same shapes, so that graph and weights should stay in memory between.
  /// Networks that run once per picture give theirs back: MoVQ's graph takes gigabytes.
  virtual bool runs_in_loop() const { return false; }
};

}  // namespace kandinsky
