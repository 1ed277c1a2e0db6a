// One ggml graph: built once for given input shapes, then run as often as wanted.
//
// Activations inside are channels-last: an image is ne = {channels, width, height, batch}, tokens are
// ne = {channels, tokens, batch}. At the border everything is in the reference's order (NCHW, and
// [batch, tokens, channels]).
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/host_tensor.h"
#include "ggml.h"
#include "graph/ops.h"

namespace kandinsky {

class Graph {
 public:
  /// `inputs` fixes the shapes. `max_nodes` is the most operations the graph may have. `taps` names intermediate
  /// tensors to return beside the outputs. `ops`: how operations are computed.
  Graph(Device& device, const HostTensors& inputs, const std::vector<std::string>& taps, size_t max_nodes,
        std::unique_ptr<Ops> ops = make_composed_ops());
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // ---- while building
  ggml_context* context() const { return context_.get(); }
  const Device& device() const { return device_; }
  Ops& ops() { return *ops_; }

  bool has_input(const std::string& name) const { return shapes_.count(name) != 0; }
  /// The named input as it lies in memory: ne is the reversed shape.
  ggml_tensor* input(const std::string& name);
  /// The named NCHW input as a channels-last image.
  ggml_tensor* image_input(const std::string& name);
  /// A vector of int32 (row numbers for ggml_get_rows), made and stored once per key.
  ggml_tensor* indices(const std::string& key, const std::function<std::vector<int32_t>()>& make);
  /// `target` as it is after `write`, a ggml_cpy into a view of it. Without this nothing tells ggml that readers of
  /// `target` come later, and its allocator never frees what a node without readers views.
  ggml_tensor* written(ggml_tensor* target, ggml_tensor* write);
  /// Computes `tensor` before everything that is added later. Otherwise the outputs decide on the order, in which too
  /// many intermediate results may have to be kept at once.
  void schedule(ggml_tensor* tensor);
  /// `tensor`, computed again only in runs whose inputs differ, as far as it depends on them, from the run before.
  ggml_tensor* keep(ggml_tensor* tensor);
  Operand keep(Operand operand) { return Operand(keep(operand.tensor)); }

  /// A result of `rank` dimensions; rank 4 is an image and is returned as NCHW.
  void output(const std::string& name, ggml_tensor* tensor, int rank);
  /// Whether the caller asked for an intermediate tensor of that name.
  bool wants(const std::string& name) const { return taps_.count(name) != 0; }
  /// Makes `tensor` an output if its name was asked for.
  void tap(const std::string& name, ggml_tensor* tensor, int rank);

  // ---- afterwards
  /// Allocates. Throws out_of_memory, invalid_argument for a tap that does not exist, internal for an operation that
  /// the device lacks.
  void finish();
  /// Instead of finish(): allocates no nodes, and only tells what they would take, in compute_bytes().
  void measure();
  /// Results of the right shapes, all zero.
  HostTensors blank_results() const;
  /// Throws aborted, out_of_memory.
  HostTensors run(const HostTensors& inputs, const std::atomic<bool>* cancel);
  uint64_t compute_bytes() const { return compute_bytes_; }
  /// CPU threads that the graph runs on: all of the device's, or one where they would mostly wait for each other.
  int thread_count() const;

 private:
  struct Output {
    ggml_tensor* tensor;
    std::vector<int64_t> shape;
  };

  /// Nodes that run together, in memory of their own.
  struct Part {
    ggml_cgraph* graph = nullptr;
    ggml_gallocr_ptr allocator;
  };

  ggml_context* new_context(size_t bytes);
  ggml_tensor* new_leaf(const std::string& name, ggml_type type, const std::vector<int64_t>& ne);
  std::vector<Part*> make_parts();
  uint64_t bytes_of(const std::vector<Part*>& parts) const;
  void check_nodes(const Part& part) const;
  void expect_memory(const std::vector<Part*>& parts) const;
  void allocate_leaves();
  void allocate_nodes(Part& part);
  bool kept_is_valid(const HostTensors& inputs) const;
  void compute(const Part& part, const std::atomic<bool>* cancel);

  Device& device_;
  std::map<std::string, std::pair<std::vector<int64_t>, bool>> shapes_;  // of the inputs; true: int32
  std::set<std::string> taps_;                                          // not yet found
  std::vector<std::unique_ptr<std::byte[]>> arenas_;  // what the contexts lie in
  ggml_context_ptr context_;
  ggml_context_ptr leaf_context_;  // inputs and indices keep their memory between runs, apart from the nodes'
  std::unique_ptr<Ops> ops_;
  Part every_run_, kept_;
  HostTensors kept_inputs_;  // what the values of `kept_` were computed from; empty: nothing yet
  std::map<std::string, ggml_tensor*> inputs_;
  std::map<std::string, std::pair<ggml_tensor*, std::vector<int32_t>>> indices_;
  std::map<std::string, Output> outputs_;
  size_t leaf_count_ = 0;
  ggml_backend_buffer_ptr leaf_buffer_;
  uint64_t compute_bytes_ = 0;
};

}  // namespace kandinsky
