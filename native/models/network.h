// What the engine looks like from outside: one network, run with named host tensors.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/host_tensor.h"
#include "core/tensor_source.h"

namespace kandinsky {

struct RunOptions {
  const std::atomic<bool>* cancel = nullptr;
  /// Names of intermediate tensors (diffusers module paths, e.g. "down_blocks.0") to return beside the outputs.
  std::vector<std::string> taps;
};

class Network {
 public:
  virtual ~Network() = default;
  /// Runs one of the network's methods ("forward", "encode", "decode"). Not re-entrant: callers queue.
  /// Throws invalid_argument/shape_mismatch for wrong inputs, aborted when cancelled, out_of_memory.
  virtual HostTensors run(const std::string& method, const HostTensors& inputs, const RunOptions& options) = 0;
  /// Gives back the memory of weights that can be had again: of those that lie mapped in a file, which the next run
  /// takes from the system's cache of the file, and of packed ones, which it packs again. For the end of a loop:
  /// networks that do not run in one do it after each run. Not during a run.
  virtual void release_weights() = 0;
  /// Adds to matrices, beside them, what the `adapters` of these sources say, whose names are those of the weights, and no
  /// longer what an earlier call said. Not during a run. Throws as LowRankWeights does; the network is then as before.
  virtual void adapt(const std::vector<TensorSource>& sources, const std::atomic<bool>* cancel) = 0;
  /// Bytes held for weights, and for activations of the largest graph so far.
  virtual uint64_t weight_bytes() const = 0;
  virtual uint64_t compute_bytes() const = 0;
  /// Floating-point operations of the latest run's products, where they are counted (Ops::flops).
  virtual std::optional<double> flops() const = 0;
};

/// What the CPU's kernels do with weights: expand them as loaded at each use, or once, which takes 2 to 8 bytes per
/// weight instead of about 1. Networks that do not run in a loop are always compact.
enum class Packing { compact, fast };

/// When MoVQ computes a picture in tiles, which takes less memory and more time for the same result. `automatic`: where
/// memory would not suffice. Calls with taps are never tiled.
enum class Tiling { automatic, always, never };

struct LoadOptions {
  std::string device = "cpu";  // "cpu", "cuda", "cuda:1"
  int threads = 0;             // 0: one per physical core
  Packing packing = Packing::compact;
  Tiling tiling = Tiling::automatic;
  /// Reads no weights and computes nothing: runs give zeros, and the bytes are those that would be. CPU only; not tiled
  /// unless always.
  bool dry_run = false;
  const std::atomic<bool>* cancel = nullptr;
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes; called on the loading thread
};

/// Class names (diffusers, transformers) that load_network understands, e.g. "UNet2DConditionModel".
std::vector<std::string> network_classes();

/// Builds a network of the given class from its config and loads its weights. Sources that the network does not use
/// are ignored; a missing one or a wrong shape is an error that names it.
std::unique_ptr<Network> load_network(const std::string& class_name, const Config& config,
                                      const std::vector<TensorSource>& sources, const LoadOptions& options);

/// Every weight that a network of this class and config has; loads nothing. `stored`: the names that a checkpoint has,
/// which decide about optional weights; null: all of them.
std::vector<TensorSpec> describe_network(const std::string& class_name, const Config& config,
                                         const std::set<std::string>* stored = nullptr);

}  // namespace kandinsky
