// The only list of networks, and what all of them share: loading, and keeping a graph between runs.
#include <algorithm>
#include <new>

#include "core/error.h"
#include "core/packed_weights.h"
#include "models/model.h"
#include "models/network.h"

namespace kandinsky {

namespace {

using Factory = std::unique_ptr<Model> (*)(const Config&, const Weights&);

const std::map<std::string, Factory>& factories() {
  static const std::map<std::string, Factory> list{
      {"CLIPTextModelWithProjection", make_clip_text},
      {"CLIPVisionModelWithProjection", make_clip_vision},
      {"DPTForDepthEstimation", make_dpt},
      {"MultilingualCLIP", make_multilingual_clip},
      {"PriorTransformer", make_prior_transformer},
      {"UNet2DConditionModel", make_unet_2d_condition},
      {"VQModel", make_movq},
  };
  return list;
}

Factory factory_of(const std::string& class_name) {
  const auto found = factories().find(class_name);
  if (found != factories().end()) return found->second;
  std::string known;
  for (const auto& [name, factory] : factories()) known += (known.empty() ? "" : ", ") + name;
  fail(ErrorCode::unsupported_model, "Expected one of %s for the network's class but received \"%s\"", known.c_str(),
       class_name.c_str());
}

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
  LoadedNetwork(Factory factory, const Config& config, const std::vector<TensorSource>& sources,
                const LoadOptions& options)
      : component_(config.component()),
        device_(options.device, options.threads),
        tiling_(options.tiling),
        weights_(config.component(), sources),
        model_(factory(config, weights_.root())) {
    weights_.load(device_, options.cancel, options.progress);
    if (options.packing == Packing::compact) return;
    if (!device_.is_cpu()) {
      fail(ErrorCode::invalid_argument, "Expected a CPU for the packing fast but the device is %s",
           device_.name().c_str());
    }
    // Weights of a network that runs once per picture would be packed for a single use.
    if (model_->runs_in_loop()) packed_ = std::make_unique<PackedWeights>(kernels(), weights_, device_.threads());
  }

  HostTensors run(const std::string& method, const HostTensors& inputs, const RunOptions& options) override {
    check_method(method);
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
    if (packed_) {
      graph_.reset();  // reads them
      packed_->clear();
    }
    weights_.drop_pages();
  }

  uint64_t weight_bytes() const override { return weights_.bytes() + (packed_ ? packed_->bytes() : 0); }
  uint64_t compute_bytes() const override { return compute_bytes_; }

 private:
  void check_method(const std::string& method) const {
    std::string known;
    for (const std::string& name : model_->methods()) {
      if (name == method) return;
      known += (known.empty() ? "" : ", ") + name;
    }
    fail(ErrorCode::invalid_argument, "%s: expected one of the methods %s but received \"%s\"", component_.c_str(),
         known.c_str(), method.c_str());
  }

  HostTensors run_graph(const std::string& method, const HostTensors& inputs, const RunOptions& options, bool tiled) {
    try {
      HostTensors results = graph_for(method, inputs, options.taps, tiled).run(inputs, options.cancel);
      finish_run();
      return results;
    } catch (const std::bad_alloc&) {
      graph_.reset();
      fail(ErrorCode::out_of_memory, "%s: no memory for the inputs and results of %s", component_.c_str(),
           method.c_str());
    } catch (const Error&) {
      finish_run();
      throw;
    }
  }

  void finish_run() {
    if (model_->runs_in_loop()) return;
    graph_.reset();
    release_weights();
  }

  HostTensors run_tiled(const std::string& method, const HostTensors& inputs, const RunOptions& options) {
    HostTensors results;
    const int64_t batch = inputs.begin()->second.shape[0];
    for (int64_t i = 0; i < batch; ++i) append(results, run_graph(method, sample_of(inputs, i), options, true));
    return results;
  }

  /// The last graph if method, shapes, taps and tiling are the same, otherwise a new one in its place.
  Graph& graph_for(const std::string& method, const HostTensors& inputs, const std::vector<std::string>& taps,
                   bool tiled) {
    std::string key = (tiled ? "tiled " : "") + method;
    for (const auto& [name, tensor] : inputs) key += " " + name + shape_text(tensor.shape);
    for (const std::string& tap : taps) key += " " + tap;
    if (graph_ && key == graph_key_) return *graph_;

    graph_.reset();  // first: two graphs may not fit
    graph_ = make_graph(method, inputs, taps, tiled);
    compute_bytes_ = std::max(compute_bytes_, graph_->compute_bytes());
    graph_key_ = key;
    return *graph_;
  }

  std::unique_ptr<Graph> make_graph(const std::string& method, const HostTensors& inputs,
                                    const std::vector<std::string>& taps, bool tiled) {
    // A weight takes part in at most the pieces of one convolution or attention and what surrounds them.
    const size_t max_nodes = 1024 + 320 * weights_.specs().size();
    auto graph = std::make_unique<Graph>(device_, inputs, taps, max_nodes, kernel_nodes());
    tiled ? model_->build_tiled(method, *graph) : model_->build(method, *graph);
    graph->finish();
    return graph;
  }

  /// A network whose matrices are all float32 is computed in float32, whatever else the processor offers.
  const CpuKernels& kernels() const { return cpu_kernels(weights_.is_f32()); }
  std::unique_ptr<KernelNodes> kernel_nodes() const {
    if (!device_.is_cpu()) return nullptr;
    return std::make_unique<KernelNodes>(kernels(), device_.threads(), packed_.get());
  }

  std::string component_;
  Device device_;
  Tiling tiling_;
  WeightStore weights_;
  std::unique_ptr<PackedWeights> packed_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Graph> graph_;
  std::string graph_key_;
  uint64_t compute_bytes_ = 0;
};

}  // namespace

std::vector<std::string> network_classes() {
  std::vector<std::string> names;
  for (const auto& [name, factory] : factories()) names.push_back(name);
  return names;
}

std::unique_ptr<Network> load_network(const std::string& class_name, const Config& config,
                                      const std::vector<TensorSource>& sources, const LoadOptions& options) {
  return std::make_unique<LoadedNetwork>(factory_of(class_name), config, sources, options);
}

std::vector<TensorSpec> describe_network(const std::string& class_name, const Config& config) {
  WeightStore store(config.component());
  factory_of(class_name)(config, store.root());
  std::vector<TensorSpec> specs;
  for (const WeightStore::Spec& spec : store.specs()) specs.push_back({spec.name, spec.shape});
  return specs;
}

std::vector<DeviceInfo> list_devices() {
  std::vector<DeviceInfo> infos;
  for (const AvailableDevice& device : available_devices()) {
    DeviceInfo info{device.name, device.kind, ggml_backend_dev_description(device.handle), 0, 0};
    size_t free = 0, total = 0;
    device_memory(device.handle, &free, &total);
    info.free_bytes = free;
    info.total_bytes = total;
    infos.push_back(info);
  }
  return infos;
}

}  // namespace kandinsky
