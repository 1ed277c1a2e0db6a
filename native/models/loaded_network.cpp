#include "models/loaded_network.h"

#include <algorithm>
#include <new>

#include "core/cpu_kernels.h"
#include "core/error.h"
#include "graph/low_rank.h"
#include "graph/packed_weights.h"
#include "models/graph_cache.h"

namespace kandinsky {

namespace {

// Two shapes of one method, or two methods, alternate within a loop; of graphs of full-size pictures one or two fit.
constexpr size_t kept_graphs = 4;
constexpr uint64_t kept_graph_bytes = 1u << 30;

/// One sample of float32 tensors whose first dimension is the batch.
HostTensors sample_of(const HostTensors& batch, int64_t index) {
  HostTensors sample;
  for (const auto& [name, tensor] : batch) {
    HostTensor& part = sample[name];
    part.shape = tensor.shape;
    part.shape[0] = 1;
    const auto size = static_cast<std::ptrdiff_t>(tensor.f32.size()) / tensor.shape[0];
    part.f32.assign(tensor.f32.begin() + index * size, tensor.f32.begin() + (index + 1) * size);
  }
  return sample;
}

void append(HostTensors& batch, const HostTensors& sample) {
  for (const auto& [name, tensor] : sample) {
    HostTensor& whole = batch[name];
    const int64_t count = whole.shape.empty() ? 0 : whole.shape[0];
    whole.shape = tensor.shape;
    whole.shape[0] += count;
    whole.f32.insert(whole.f32.end(), tensor.f32.begin(), tensor.f32.end());
  }
}

class LoadedNetwork : public Network {
 public:
  LoadedNetwork(ModelFactory factory, const Config& config, const std::vector<TensorSource>& sources,
                const LoadOptions& options)
      : component_(config.component()),
        device_(options.device, options.threads),
        tiling_(options.tiling),
        dry_run_(options.dry_run),
        weights_(config.component(), sources),
        model_(factory(config, weights_.root())) {
    if (dry_run_) {
      if (!device_.is_cpu() || options.packing == Packing::fast) {
        fail(ErrorCode::invalid_argument, "Expected a CPU and the packing compact for a dry run");
      }
      weights_.pretend(device_);
      return;
    }
    weights_.load(device_, options.cancel, options.progress);
    if (options.packing == Packing::fast) pack();
    weights_.check_files();
  }

  HostTensors run(const std::string& method, const HostTensors& inputs, const RunOptions& options) override {
    check_method(method);
    weights_.check_files();
    const HostTensors prepared = model_->prepare(method, inputs);
    const bool can_tile = tiling_ != Tiling::never && model_->has_tiles() && options.taps.empty();
    if (can_tile && tiling_ == Tiling::always) return run_tiled(method, prepared, options);
    try {
      return run_graph(method, prepared, options, false);
    } catch (const Error& error) {
      if (!can_tile || error.code != ErrorCode::out_of_memory) throw;
    }
    return run_tiled(method, prepared, options);
  }

  void release_weights() override {
    if (packed_) graphs_.clear();  // they hold what is packed
    weights_.drop_pages();
  }

  void adapt(const std::vector<TensorSource>& sources, const std::atomic<bool>* cancel) override {
    auto adapters = sources.empty() ? nullptr : std::make_unique<LowRankWeights>(device_, weights_, sources, cancel);
    graphs_.clear();
    adapters_ = std::move(adapters);
  }

  uint64_t weight_bytes() const override {
    return weights_.bytes() + (packed_ ? packed_->bytes() : 0) + (adapters_ ? adapters_->bytes() : 0);
  }
  uint64_t compute_bytes() const override { return compute_bytes_; }
  std::optional<double> flops() const override { return flops_; }

 private:
  void pack() {
    if (!device_.is_cpu()) {
      fail(ErrorCode::invalid_argument, "Expected a CPU for the packing fast but the device is {}", device_.name());
    }
    // Weights of a network that runs once per picture would be packed for a single use.
    if (model_->runs_in_loop()) packed_ = std::make_unique<PackedWeights>(*kernels(), weights_, device_.threads());
  }

  void check_method(const std::string& method) const {
    std::string known;
    for (const std::string& name : model_->methods()) {
      if (name == method) return;
      known += (known.empty() ? "" : ", ") + name;
    }
    fail(ErrorCode::invalid_argument, "{}: expected one of the methods {} but received \"{}\"", component_, known,
         method);
  }

  HostTensors run_graph(const std::string& method, const HostTensors& inputs, const RunOptions& options, bool tiled) {
    try {
      Graph& graph = graph_for(method, inputs, options.taps, tiled);
      HostTensors results = dry_run_ ? graph.blank_results() : graph.run(inputs, options.cancel);
      finish_run();
      weights_.check_files();
      return results;
    } catch (const std::bad_alloc&) {
      graphs_.clear();
      fail(ErrorCode::out_of_memory, "{}: no memory for the inputs and results of {}", component_, method);
    } catch (const Error&) {
      finish_run();
      throw;
    }
  }

  void finish_run() {
    if (model_->runs_in_loop()) return;
    graphs_.clear();
    release_weights();
  }

  HostTensors run_tiled(const std::string& method, const HostTensors& inputs, const RunOptions& options) {
    HostTensors results;
    const int64_t batch = inputs.begin()->second.shape[0];
    for (int64_t i = 0; i < batch; ++i) append(results, run_graph(method, sample_of(inputs, i), options, true));
    return results;
  }

  /// One for each method, shapes, taps and tiling.
  Graph& graph_for(const std::string& method, const HostTensors& inputs, const std::vector<std::string>& taps,
                   bool tiled) {
    std::string key = (tiled ? "tiled " : "") + method;
    for (const auto& [name, tensor] : inputs) key += " " + name + shape_text(tensor.shape);
    for (const std::string& tap : taps) key += " " + tap;
    Graph& graph = graphs_.find(key, [&] { return make_graph(method, inputs, taps, tiled); });
    compute_bytes_ = std::max(compute_bytes_, graph.compute_bytes());
    flops_ = graph.ops().flops();
    return graph;
  }

  std::unique_ptr<Graph> make_graph(const std::string& method, const HostTensors& inputs,
                                    const std::vector<std::string>& taps, bool tiled) {
    // A weight takes part in at most the pieces of one convolution or attention and what surrounds them.
    const size_t max_nodes = 1024 + 320 * weights_.specs().size();
    auto ops = kernels() ? make_kernel_ops(*kernels(), device_, packed_.get(), adapters_.get())
                          : make_composed_ops(adapters_.get());
    auto graph = std::make_unique<Graph>(device_, inputs, taps, max_nodes, std::move(ops));
    tiled ? model_->build_tiled(method, *graph) : model_->build(method, *graph);
    dry_run_ ? graph->measure() : graph->finish();
    return graph;
  }

  /// A network whose matrices are all float32, or that asks for it, is computed in float32, whatever else the processor
  /// offers. Null: by ggml's operations.
  const KernelTable* kernels() const {
    const bool is_f32 = weights_.is_f32() || model_->needs_f32();
    return device_.is_cpu() ? &cpu_kernels(is_f32) : device_.gpu_kernels(is_f32);
  }

  std::string component_;
  Device device_;
  Tiling tiling_;
  bool dry_run_;
  WeightStore weights_;
  std::unique_ptr<PackedWeights> packed_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<LowRankWeights> adapters_;
  GraphCache graphs_{kept_graphs, kept_graph_bytes};
  uint64_t compute_bytes_ = 0;
  std::optional<double> flops_;
};

}  // namespace

std::unique_ptr<Network> load_model(ModelFactory factory, const Config& config,
                                    const std::vector<TensorSource>& sources, const LoadOptions& options) {
  return std::make_unique<LoadedNetwork>(factory, config, sources, options);
}

}  // namespace kandinsky
