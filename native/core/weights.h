// The weights of one network: asked for by name and shape while the network is built, loaded together afterwards.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
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
  /// To describe: records what is asked for; the weights are null. `stored`: the names that a checkpoint has, which
  /// decide about optional weights; null: it has them all.
  WeightStore(const std::string& component, const std::set<std::string>* stored);
  WeightStore(const WeightStore&) = delete;
  WeightStore& operator=(const WeightStore&) = delete;

  Weights root();

  /// Allocates and fills every weight that was asked for. What lies in a file exactly as wanted is mapped where the
  /// device can compute on host memory, everything else is read, converted and copied.
  void load(Device& device, const std::atomic<bool>* cancel,
            const std::function<void(uint64_t done, uint64_t total)>& progress);

  /// Instead of load(), for a graph that will not run: every weight gets an address, at which nothing is.
  void pretend(Device& device);

  const std::string& component() const { return component_; }
  /// A weight that the network has as the left operand of products: in the network's shape, and in memory. Throws
  /// invalid_argument for others.
  struct Matrix {
    const ggml_tensor* tensor;
    std::vector<int64_t> shape;
  };
  Matrix matrix(const std::string& name) const;

  /// In the order they were asked for.
  const std::vector<TensorSpec>& specs() const { return specs_; }
  uint64_t bytes() const { return bytes_; }
  /// Gives back the memory of a mapped weight, or of all of them, until they are read again.
  void drop_pages(const ggml_tensor* weight) const;
  void drop_pages() const;
  /// Throws bad_file if a mapped file has changed, or could not be read, since it was loaded: what was computed with its
  /// weights is void.
  void check_files() const;
  /// Whether every weight is float32 in memory.
  bool is_f32() const { return is_f32_; }

 private:
  friend class Weights;
  struct Weight {
    TensorSource source;
    ggml_tensor* tensor = nullptr;  // once the network has asked for it
    bool is_mapped = false;
  };

  ggml_tensor* ask(const TensorSpec& spec, bool keep_f32 = false);
  bool has(const std::string& name) const {
    return describing_ ? !stored_ || stored_->count(name) != 0 : weights_.count(name) != 0;
  }
  void map_files(Device& device, SourceFiles& files);
  void allocate_rest(Device& device);
  void read_rest(Device& device, SourceFiles& files, const std::atomic<bool>* cancel,
                 const std::function<void(uint64_t, uint64_t)>& progress);

  std::string component_;
  bool describing_;
  const std::set<std::string>* stored_ = nullptr;
  std::map<std::string, Weight> weights_;
  std::vector<TensorSpec> specs_;
  uint64_t bytes_ = 0;
  bool is_f32_ = true;
  std::vector<std::shared_ptr<const MappedFile>> mappings_;
  std::unique_ptr<std::byte[]> arena_;  // of the context
  ggml_context_ptr context_;
  std::vector<ggml_backend_buffer_ptr> buffers_;  // freed before the mappings they point into
};

/// A position in the tree of names: w["down_blocks"][0]["conv1"].
class Weights {
 public:
  Weights(WeightStore& store, std::string prefix, Precision precision = Precision::quantizable)
      : store_(&store), prefix_(std::move(prefix)), precision_(precision) {}

  Weights operator[](const std::string& part) const {
    return {*store_, prefix_.empty() ? part : prefix_ + "." + part, precision_};
  }
  Weights operator[](int64_t index) const { return (*this)[std::to_string(index)]; }
  /// The same position, where all weights need this precision or more.
  Weights at_least(Precision precision) const { return {*store_, prefix_, std::max(precision, precision_)}; }

  /// A table of rows that are only looked up: each is used as it is, so small blocks would save file size at the price of
  /// every later layer.
  ggml_tensor* lookup_table(int64_t rows, int64_t columns) const {
    return at_least(Precision::half).matrix(rows, columns);
  }
  /// A weight used element by element (norm, bias, embedding that is added): always float32 in memory.
  /// `shape` in reference order; the result's ne is its reverse.
  ggml_tensor* get(const std::vector<int64_t>& shape) const {
    return store_->ask({prefix_, shape, Precision::exact, false}, true);
  }
  /// The left operand of a matrix product or a lookup table, [rows, columns], in the type that its source targets.
  ggml_tensor* matrix(int64_t rows, int64_t columns) const {
    return store_->ask({prefix_, {rows, columns}, precision_, false});
  }
  /// A convolution kernel [out, in, kh, kw] as the matrix [out, kh*kw*in] (core/types.h); the source may hold either
  /// form.
  ggml_tensor* kernel(int64_t out, int64_t in, int64_t kh, int64_t kw) const {
    return store_->ask({prefix_, {out, in, kh, kw}, precision_, false});
  }
  /// A transposed convolution's kernel [in, out, kh, kw] as the matrix [kh*kw*out, in].
  ggml_tensor* transposed_kernel(int64_t in, int64_t out, int64_t kh, int64_t kw) const {
    return store_->ask({prefix_, {in, out, kh, kw}, precision_, true});
  }
  /// For the few weights whose presence, not the config, decides (a config's null and an absent key look alike).
  bool has(const std::string& part) const { return store_->has((*this)[part].prefix_); }
  /// For errors: "unet: mid_block.attentions.0".
  std::string where() const { return store_->component_ + ": " + prefix_; }

 private:
  WeightStore* store_;
  std::string prefix_;
  Precision precision_;
};

}  // namespace kandinsky
