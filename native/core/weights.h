// The weights of one network: asked for by name and shape while the network is built, loaded together afterwards.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/tensor_source.h"
#include "ggml.h"

namespace kandinsky {

class Weights;

class WeightStore {
 public:
  /// To load: every weight must be among `sources`. `component` names the network in errors, e.g. "unet".
  WeightStore(const std::string& component, const std::vector<TensorSource>& sources);
  /// To describe: records names and shapes; weights asked for are null.
  explicit WeightStore(const std::string& component);
  WeightStore(const WeightStore&) = delete;
  WeightStore& operator=(const WeightStore&) = delete;

  Weights root();

  /// Allocates and fills every weight that was asked for. What lies in a file exactly as wanted is mapped where the
  /// device can compute on host memory, everything else is read, converted and copied.
  void load(Device& device, const std::atomic<bool>* cancel,
            const std::function<void(uint64_t done, uint64_t total)>& progress);

  /// Reference names and shapes in the order they were asked for.
  struct Spec {
    std::string name;
    std::vector<int64_t> shape;
  };
  const std::vector<Spec>& specs() const { return specs_; }
  uint64_t bytes() const { return bytes_; }
  /// Gives back the memory of a mapped weight, or of all of them, until they are read again.
  void drop_pages(const ggml_tensor* weight) const;
  void drop_pages() const;
  /// Whether every weight is float32 in memory.
  bool is_f32() const { return is_f32_; }

 private:
  friend class Weights;
  struct Weight {
    TensorSource source;
    ggml_tensor* tensor = nullptr;  // once the network has asked for it
    bool is_mapped = false;
  };

  struct Mapping {
    std::shared_ptr<const std::byte> first;
    uint64_t size;
  };

  ggml_tensor* ask(const std::string& name, const std::vector<int64_t>& shape, bool keep_f32);
  bool has(const std::string& name) const { return describing_ || weights_.count(name) != 0; }
  void map_files(Device& device, SourceFiles& files);
  void allocate_rest(Device& device);
  void read_rest(Device& device, SourceFiles& files, const std::atomic<bool>* cancel,
                 const std::function<void(uint64_t, uint64_t)>& progress);

  std::string component_;
  bool describing_;
  std::map<std::string, Weight> weights_;
  std::vector<Spec> specs_;
  uint64_t bytes_ = 0;
  bool is_f32_ = true;
  std::vector<Mapping> mappings_;
  ggml_context_ptr context_;
  std::vector<ggml_backend_buffer_ptr> buffers_;  // freed before the mappings they point into
};

/// A position in the tree of names: w["down_blocks"][0]["conv1"].
class Weights {
 public:
  Weights(WeightStore& store, std::string prefix) : store_(&store), prefix_(std::move(prefix)) {}

  Weights operator[](const std::string& part) const {
    return {*store_, prefix_.empty() ? part : prefix_ + "." + part};
  }
  Weights operator[](int64_t index) const { return (*this)[std::to_string(index)]; }

  /// A weight used element by element (norm, bias, embedding that is added): always float32 in memory.
  /// `shape` in reference order; the result's ne is its reverse.
  ggml_tensor* get(const std::vector<int64_t>& shape) const { return store_->ask(prefix_, shape, true); }
  /// The left operand of a matrix product or a lookup table, [rows, columns], in the type that its source targets.
  ggml_tensor* matrix(int64_t rows, int64_t columns) const { return store_->ask(prefix_, {rows, columns}, false); }
  /// A convolution kernel [out, in, kh, kw] as the packed matrix [out, kh*kw*in] (core/types.h); the source may hold
  /// either form.
  ggml_tensor* kernel(int64_t out, int64_t in, int64_t kh, int64_t kw) const {
    return store_->ask(prefix_, {out, in, kh, kw}, false);
  }
  /// For the few weights whose presence, not the config, decides (a config's null and an absent key look alike).
  bool has(const std::string& part) const { return store_->has((*this)[part].prefix_); }
  /// For errors: "unet: mid_block.attentions.0".
  std::string where() const { return store_->component_ + ": " + prefix_; }

 private:
  WeightStore* store_;
  std::string prefix_;
};

}  // namespace kandinsky
