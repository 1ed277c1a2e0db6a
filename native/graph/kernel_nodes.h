// Kernels of a table (kernels/kernels.h) as nodes of a ggml graph.
//
// ggml calls a custom operation on every thread of the graph (on a GPU once: cuda/backend.cpp), with no work buffer, no
// barrier and no place for arguments but a pointer: arguments, scratch memory and the threads' meeting point live here,
// as long as the graph.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "core/device.h"
#include "ggml.h"
#include "graph/packed_weights.h"

namespace kandinsky {

class KernelNodes {
 public:
  /// `packed` null: weights stay as they were loaded and are expanded at each use.
  KernelNodes(const KernelTable& kernels, const Device& device, PackedWeights* packed)
      : kernels_(kernels), device_(device), threads_(device.threads()), packed_(packed) {}
  KernelNodes(const KernelNodes&) = delete;
  KernelNodes& operator=(const KernelNodes&) = delete;

  const KernelTable& kernels() const { return kernels_; }
  /// ggml's name for the element type of what products read.
  ggml_type act_type() const { return kernels_.act_type == NumberType::bf16 ? GGML_TYPE_BF16 : GGML_TYPE_F32; }

  struct Result {
    ggml_type type;
    std::array<int64_t, 4> ne;
  };

  /// A node that runs `kernel`. `args` has all sizes and the addresses of weights; `bind` adds those of `sources` (null
  /// ones are left out) and of the result once they are known.
  template <typename Args>
  ggml_tensor* add(ggml_context* c, const Kernel<Args>& kernel, const Args& args, const Result& result,
                   std::vector<ggml_tensor*> sources, std::function<void(Args&, ggml_tensor* result)> bind) {
    auto node = std::make_unique<NodeOf<Args>>();
    node->kernel = kernel;
    node->args = args;
    node->bind_args = std::move(bind);
    node->work = &work_;
    scratch_size_ = std::max(scratch_size_, kernel.scratch_size(&args, threads_));
    node->result = add_node(c, result, std::move(sources), NodeOf<Args>::run, node.get());
    ggml_set_name(node->result, kind_of(args));
    flops_ += flops_of(args);
    nodes_.push_back(std::move(node));
    return nodes_.back()->result;
  }

  bool packs_weights() const { return packed_ != nullptr; }
  /// A weight matrix ne = {taps * in, out} as the kernels take it. Where weights are to be packed and this one is not
  /// yet, the result points to where allocate() will pack it.
  ProductWeights weights(const ggml_tensor* weight, int taps, Algorithm algorithm);

  /// Floating-point operations of all nodes.
  double flops() const { return flops_; }

  /// After the graph's tensors have got their memory. Throws out_of_memory.
  void allocate();
  size_t scratch_bytes() const { return scratch_size_; }
  /// What allocate() will fill with packed weights: address space until then.
  size_t unpacked_bytes() const;

 private:
  struct Node {
    virtual ~Node() = default;
    virtual void bind() = 0;
    ggml_tensor* result = nullptr;
  };
  template <typename Args>
  struct NodeOf : Node {
    void bind() override { bind_args(args, result); }
    static void run(ggml_tensor*, int ith, int nth, void* userdata) {
      auto* node = static_cast<NodeOf*>(userdata);
      node->kernel.run(&node->args, node->work, ith, nth);
    }
    Kernel<Args> kernel;
    Args args;
    std::function<void(Args&, ggml_tensor*)> bind_args;
    WorkContext* work = nullptr;
  };

  struct Unpacked {
    WeightRows rows;
    AlignedBytes data;
  };

  // Of the products, which are nearly all of the work; convolutions as the direct method has them.
  static double flops_of(const PrepareArgs&) { return 0; }
  static double flops_of(const LayerNormArgs&) { return 0; }
  static double flops_of(const ConvArgs& args);
  static double flops_of(const GemmArgs& args);
  static double flops_of(const AttentionArgs& args);
  // What a profile calls a node.
  static const char* kind_of(const PrepareArgs&) { return "norm, activation, border"; }
  static const char* kind_of(const LayerNormArgs&) { return "layer norm"; }
  static const char* kind_of(const ConvArgs& args);
  static const char* kind_of(const GemmArgs&) { return "linear, 1x1 convolution"; }
  static const char* kind_of(const AttentionArgs&) { return "attention"; }

  const void* packed_address(const ggml_tensor* weight, const WeightRows& rows, Algorithm algorithm);
  static ggml_tensor* add_node(ggml_context* c, const Result& result, std::vector<ggml_tensor*> sources,
                               ggml_custom_op_t run, void* userdata);

  const KernelTable& kernels_;
  const Device& device_;
  int threads_;
  PackedWeights* packed_;
  std::map<std::pair<const ggml_tensor*, Algorithm>, Unpacked> unpacked_;
  std::vector<PackedWeights::Data> held_;  // what the nodes read
  std::vector<std::unique_ptr<Node>> nodes_;
  double flops_ = 0;
  size_t scratch_size_ = 64;
  AlignedBytes scratch_;
  ggml_backend_buffer_ptr gpu_scratch_;
  WorkContext work_;
};

}  // namespace kandinsky
