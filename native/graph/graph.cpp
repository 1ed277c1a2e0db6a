#include "graph/graph.h"

#include <algorithm>
#include <cstdint>

#include "core/error.h"
#include "core/types.h"
#include "graph/profile.h"

namespace kandinsky {

namespace {

constexpr size_t max_leaves = 4096;

// ggml's threads meet after every node. That takes some 10 microseconds, and a thousand times as long where other work
// has the cores, because ggml's threads spin: the demo model's picture took 17 s instead of 1. Its graphs have 3 to 20
// million operations per node, those of the published models 300 million and more.
constexpr double flops_worth_meeting = 25e6;

const void* host_data(const HostTensor& tensor) {
  return tensor.is_int ? static_cast<const void*>(tensor.i32.data()) : tensor.f32.data();
}

/// Names of the leaves, all inputs among them, that the nodes of a graph read.
std::set<std::string> leaves_of(ggml_cgraph* graph) {
  std::set<std::string> names;
  for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
    for (const ggml_tensor* source : ggml_graph_node(graph, i)->src) {
      if (source && source->op == GGML_OP_NONE) names.insert(ggml_get_name(source));
    }
  }
  return names;
}

}  // namespace

Graph::Graph(Device& device, const HostTensors& inputs, const std::vector<std::string>& taps, size_t max_nodes,
             std::unique_ptr<Ops> ops)
    : device_(device), taps_(taps.begin(), taps.end()), ops_(std::move(ops)) {
  for (const auto& [name, tensor] : inputs) shapes_[name] = {tensor.shape, tensor.is_int};
  context_.reset(new_context(max_nodes * ggml_tensor_overhead() + 2 * ggml_graph_overhead_custom(max_nodes, false)));
  leaf_context_.reset(new_context(max_leaves * ggml_tensor_overhead()));
  for (Part* part : {&every_run_, &kept_}) part->graph = ggml_new_graph_custom(context(), max_nodes, false);
}

ggml_context* Graph::new_context(size_t bytes) {
  // ggml_init would assert that it gets its memory; here a lack of it throws. Only what is used of it is ever touched.
  std::unique_ptr<std::byte[]> arena(new std::byte[bytes]);
  arenas_.push_back(std::move(arena));
  return ggml_init({bytes, arenas_.back().get(), true});
}

ggml_tensor* Graph::new_leaf(const std::string& name, ggml_type type, const std::vector<int64_t>& ne) {
  if (++leaf_count_ > max_leaves) fail(ErrorCode::internal, "more than {} leaves", max_leaves);
  ggml_tensor* leaf = ggml_new_tensor(leaf_context_.get(), type, static_cast<int>(ne.size()), ne.data());
  ggml_set_name(leaf, name.c_str());
  return leaf;
}

ggml_tensor* Graph::input(const std::string& name) {
  ggml_tensor*& leaf = inputs_[name];
  if (!leaf) {
    const auto& [shape, is_int] = shapes_.at(name);
    leaf = new_leaf(name, is_int ? GGML_TYPE_I32 : GGML_TYPE_F32, {shape.rbegin(), shape.rend()});
  }
  return leaf;
}

ggml_tensor* Graph::image_input(const std::string& name) {
  return ggml_cont(context(), ggml_permute(context(), input(name), 1, 2, 0, 3));
}

ggml_tensor* Graph::indices(const std::string& key, const std::function<std::vector<int32_t>()>& make) {
  auto found = indices_.find(key);
  if (found == indices_.end()) {
    std::vector<int32_t> values = make();
    ggml_tensor* leaf = new_leaf(key, GGML_TYPE_I32, {static_cast<int64_t>(values.size())});
    found = indices_.emplace(key, std::make_pair(leaf, std::move(values))).first;
  }
  return found->second.first;
}

ggml_tensor* Graph::written(ggml_tensor* target, ggml_tensor* write) {
  const auto& t = *target;
  ggml_tensor* view = ggml_view_4d(context(), target, t.ne[0], t.ne[1], t.ne[2], t.ne[3], t.nb[1], t.nb[2], t.nb[3], 0);
  view->src[1] = write;  // views compute nothing, but their sources count as read
  return view;
}

void Graph::schedule(ggml_tensor* tensor) { ggml_build_forward_expand(every_run_.graph, tensor); }

ggml_tensor* Graph::keep(ggml_tensor* tensor) {
  ggml_tensor* leaf = new_leaf("kept", tensor->type, {tensor->ne, tensor->ne + GGML_MAX_DIMS});
  ggml_build_forward_expand(kept_.graph, ggml_cpy(context(), tensor, leaf));
  return leaf;
}

void Graph::output(const std::string& name, ggml_tensor* tensor, int rank) {
  ggml_tensor* result = rank == 4 ? ggml_permute(context(), tensor, 2, 0, 1, 3) : tensor;
  result = ggml_cont(context(), result);
  ggml_set_output(result);
  ggml_build_forward_expand(every_run_.graph, result);
  std::vector<int64_t> shape(result->ne, result->ne + rank);
  std::reverse(shape.begin(), shape.end());
  outputs_[name] = {result, shape};
}

void Graph::tap(const std::string& name, ggml_tensor* tensor, int rank) {
  if (taps_.erase(name)) output(name, tensor, rank);
}

std::vector<Graph::Part*> Graph::make_parts() {
  if (!taps_.empty()) {
    fail(ErrorCode::invalid_argument, "Expected the name of one of the network's modules for taps but received \"{}\"", taps_.begin()->c_str());
  }
  std::vector<Part*> parts;
  for (Part* part : {&kept_, &every_run_}) {
    if (ggml_graph_n_nodes(part->graph) == 0) continue;
    check_nodes(*part);
    part->allocator.reset(ggml_gallocr_new(ggml_backend_get_default_buffer_type(device_.backend())));
    parts.push_back(part);
  }
  return parts;
}

void Graph::measure() {
  const std::vector<Part*> parts = make_parts();
  allocate_leaves();  // small beside the nodes
  compute_bytes_ += bytes_of(parts) + ops_->scratch_bytes();
}

HostTensors Graph::blank_results() const {
  HostTensors results;
  for (const auto& [name, output] : outputs_) {
    HostTensor& result = results[name];
    result.shape = output.shape;
    result.f32.resize(element_count(output.shape));
  }
  return results;
}

void Graph::finish() {
  const std::vector<Part*> parts = make_parts();
  expect_memory(parts);
  allocate_leaves();
  for (Part* part : parts) allocate_nodes(*part);
  ops_->allocate();
  compute_bytes_ += ops_->scratch_bytes();
}

void Graph::check_nodes(const Part& part) const {
  for (int i = 0; i < ggml_graph_n_nodes(part.graph); ++i) {
    const ggml_tensor* node = ggml_graph_node(part.graph, i);
    if (!ggml_backend_supports_op(device_.backend(), node)) {
      fail(ErrorCode::internal, "device {} cannot compute {} ({})", device_.name(), ggml_op_desc(node), ggml_get_name(node));
    }
    // CUDA kernels count in 32 bits; beyond that ggml ends the process.
    if (!device_.is_cpu() && ggml_nelements(node) > INT32_MAX) {
      fail(ErrorCode::out_of_memory, "Expected at most {} values in a tensor on {} but the pictures need {}", INT32_MAX, device_.name(), ggml_nelements(node));
    }
  }
}

/// Of nodes, and of the leaves, as long as these have no memory of their own.
uint64_t Graph::bytes_of(const std::vector<Part*>& parts) const {
  uint64_t bytes = 0;
  for (const Part* part : parts) {
    size_t size = 0;
    ggml_gallocr_reserve_n_size(part->allocator.get(), part->graph, nullptr, nullptr, &size);
    bytes += size;
  }
  return bytes;
}

/// Before anything is allocated: some systems promise any amount of memory and end the process when it is used.
void Graph::expect_memory(const std::vector<Part*>& parts) const {
  const size_t weights = ops_->unpacked_bytes();
  size_t needed = weights + ops_->scratch_bytes() + bytes_of(parts), free = 0, total = 0;
  // CUDA's operations take memory of their own while they compute, and ggml ends the process where there is none.
  if (!device_.is_cpu()) needed += needed / 4 + (256 << 20);
  device_memory(device_.handle(), &free, &total);
  if (total == 0 || needed <= free) return;
  fail(ErrorCode::out_of_memory,
       "Expected {} MB of free memory on {} for activations{} but {} MB of {} MB are free{}", megabytes(needed), device_.name(), weights ? " and packed weights" : "", megabytes(free), megabytes(total), weights ? "; with packing 'compact' the weights need none" : "");
}

void Graph::allocate_leaves() {
  leaf_buffer_.reset(ggml_backend_alloc_ctx_tensors(leaf_context_.get(), device_.backend()));
  if (!leaf_buffer_) fail(ErrorCode::out_of_memory, "no memory for a graph's inputs on {}", device_.name());
  for (auto& [key, index] : indices_) {
    auto& [leaf, values] = index;
    ggml_backend_tensor_set(leaf, values.data(), 0, values.size() * sizeof(int32_t));
    values = {};
  }
  compute_bytes_ = ggml_backend_buffer_get_size(leaf_buffer_.get());
}

void Graph::allocate_nodes(Part& part) {
  ggml_gallocr_t allocator = part.allocator.get();
  if (!ggml_gallocr_reserve(allocator, part.graph) || !ggml_gallocr_alloc_graph(allocator, part.graph)) {
    fail(ErrorCode::out_of_memory, "no memory for activations on {}", device_.name());
  }
  compute_bytes_ += ggml_gallocr_get_buffer_size(allocator, 0);
}

bool Graph::kept_is_valid(const HostTensors& inputs) const {
  if (ggml_graph_n_nodes(kept_.graph) == 0) return true;
  if (kept_inputs_.empty()) return false;
  return std::all_of(kept_inputs_.begin(), kept_inputs_.end(), [&](const auto& kept) {
    const auto& [name, tensor] = kept;
    return tensor.f32 == inputs.at(name).f32 && tensor.i32 == inputs.at(name).i32;
  });
}

int Graph::thread_count() const {
  const int nodes = ggml_graph_n_nodes(kept_.graph) + ggml_graph_n_nodes(every_run_.graph);
  const std::optional<double> flops = ops_->flops();
  return flops && *flops < flops_worth_meeting * nodes ? 1 : device_.threads();
}

void Graph::compute(const Part& part, const std::atomic<bool>* cancel) {
  const auto is_cancelled = [cancel] { return cancel && cancel->load(std::memory_order_relaxed); };
  device_.set_cancel(cancel);
  if (device_.is_cpu()) device_.use_threads(thread_count());
  const auto compute_graph = is_profiling() ? compute_profiled : ggml_backend_graph_compute;
  const ggml_status status =
      is_cancelled() ? GGML_STATUS_ABORTED : compute_graph(device_.backend(), part.graph);
  device_.set_cancel(nullptr);
  if (status == GGML_STATUS_ABORTED || is_cancelled()) fail_cancelled();
  if (status == GGML_STATUS_ALLOC_FAILED) {
    fail(ErrorCode::out_of_memory, "no memory for temporary data on {}", device_.name());
  }
  if (status != GGML_STATUS_SUCCESS) fail(ErrorCode::internal, "ggml: {}", ggml_status_to_string(status));
}

HostTensors Graph::run(const HostTensors& inputs, const std::atomic<bool>* cancel) {
  for (const auto& [name, leaf] : inputs_) {
    ggml_backend_tensor_set(leaf, host_data(inputs.at(name)), 0, ggml_nbytes(leaf));
  }
  if (!kept_is_valid(inputs)) {
    kept_inputs_.clear();
    compute(kept_, cancel);
    for (const std::string& name : leaves_of(kept_.graph)) {
      if (inputs_.count(name)) kept_inputs_[name] = inputs.at(name);
    }
  }
  compute(every_run_, cancel);

  HostTensors results;
  for (const auto& [name, output] : outputs_) {
    HostTensor result;
    result.shape = output.shape;
    result.f32.resize(element_count(output.shape));
    ggml_backend_tensor_get(output.tensor, result.f32.data(), 0, result.f32.size() * sizeof(float));
    results[name] = std::move(result);
  }
  return results;
}

}  // namespace kandinsky
