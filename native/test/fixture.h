// Reads the recorded references: config.json files, safetensors files, and the tables that describe them.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "core/config.h"
#include "core/tensor_source.h"
#include "models/network.h"
#include "test/json.h"

namespace kandinsky::test {

/// A safetensors file's tensors as sources that keep their type.
std::vector<TensorSource> safetensors_sources(const std::string& path);
/// One tensor's values, as float32 or (integers and booleans) as int32.
HostTensor read_host_tensor(const TensorSource& source);

/// One component of a tiny checkpoint: fixtures()/checkpoints/<checkpoint>/<component>.
struct Component {
  std::string class_name;
  Config config;
  std::vector<TensorSource> sources;  // targets are float32
};
Component read_component(const std::string& checkpoint, const std::string& component);
/// The same for a folder (ending in '/') with a network's config.json.
Component read_network_folder(const std::string& folder, const std::string& component);

/// One recorded call: fixtures()/traces/components/<name>.{json,safetensors}.
struct Trace {
  std::string name, checkpoint, component;
  HostTensors tensors;  // "input.sample", "output.output", "block.mid_block" ...
  Json description;

  const HostTensor& tensor(const std::string& tensor_name) const { return tensors.at(tensor_name); }
  /// What a float32 implementation may differ by: 1e-4 of the standard deviation, or ten times what torch's float32
  /// differs from its float64 where that is more (badly conditioned group norms of tiny images).
  double tolerance(const std::string& output) const;
};
Trace read_trace(const std::string& name);
/// The names of the recorded calls that start with `prefix`.
std::vector<std::string> trace_names(const std::string& prefix);

double largest_difference(const HostTensor& a, const HostTensor& b);
double largest_value(const HostTensor& a);
/// What a result may differ by from the recorded one: `tolerance`, or where KANDINSKY_CPU names kernels that round to
/// bfloat16, and on other devices than the CPU, 6 % of the largest value: twice what was measured (networks this small average out less than real ones).
double allowed_difference(const HostTensor& recorded, double tolerance);
/// ||a - b|| / ||b||
double relative_error(const HostTensor& a, const HostTensor& b);

/// A cancel flag that is set after 200 ms, for runs that take far longer.
class CancelLater {
 public:
  CancelLater() : thread_([this] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      flag_ = true;
    }) {}
  ~CancelLater() { thread_.join(); }
  const std::atomic<bool>* flag() const { return &flag_; }

 private:
  std::atomic<bool> flag_{false};
  std::thread thread_;
};

}  // namespace kandinsky::test
