#include "graph/kernel_nodes.h"

#include <algorithm>

#include "core/error.h"

namespace kandinsky {

namespace {

StoredType stored_type(ggml_type type) {
  switch (type) {
    case GGML_TYPE_F16: return StoredType::f16;
    case GGML_TYPE_BF16: return StoredType::bf16;
    case GGML_TYPE_Q8_0: return StoredType::q8_0;
    case GGML_TYPE_Q6_K: return StoredType::q6_k;
    case GGML_TYPE_Q5_K: return StoredType::q5_k;
    case GGML_TYPE_Q4_K: return StoredType::q4_k;
    case GGML_TYPE_Q5_0: return StoredType::q5_0;
    case GGML_TYPE_Q4_0: return StoredType::q4_0;
    default: return StoredType::f32;  // core/types.h has no other weights
  }
}

}  // namespace

ggml_tensor* KernelNodes::add_node(ggml_context* c, const Result& result, std::vector<ggml_tensor*> sources,
                                   ggml_custom_op_t run, void* userdata) {
  sources.erase(std::remove(sources.begin(), sources.end(), nullptr), sources.end());
  return ggml_custom_4d(c, result.type, result.ne[0], result.ne[1], result.ne[2], result.ne[3], sources.data(),
                        static_cast<int>(sources.size()), run, GGML_N_TASKS_MAX, userdata);
}

ProductWeights KernelNodes::weights(const ggml_tensor* weight, int taps, Algorithm algorithm) {
  ProductWeights result{};
  result.algorithm = algorithm;
  WeightRows& rows = result.rows;
  rows.data = weight->data;
  rows.row_bytes = static_cast<int64_t>(weight->nb[1]);
  rows.type = stored_type(weight->type);
  rows.out_features = static_cast<int>(weight->ne[1]);
  rows.taps = taps;
  rows.in_features = static_cast<int>(weight->ne[0]) / taps;
  if (packed_) result.packed = packed_address(weight, rows, algorithm);
  return result;
}

double KernelNodes::flops_of(const ConvArgs& args) {
  const WeightRows& w = args.weights.rows;
  return 2.0 * args.batch * args.height * args.width * w.out_features * w.taps * w.in_features;
}

double KernelNodes::flops_of(const GemmArgs& args) {
  return 2.0 * args.rows * args.weights.rows.out_features * args.weights.rows.in_features;
}

double KernelNodes::flops_of(const AttentionArgs& args) {
  return 4.0 * args.batch * args.heads * args.head_dim * args.queries * (args.added_tokens + args.tokens);
}

const char* KernelNodes::kind_of(const ConvArgs& args) {
  switch (args.weights.algorithm) {
    case Algorithm::winograd_f2: return "convolution F(2x2)";
    case Algorithm::winograd_f4: return "convolution F(4x4)";
    case Algorithm::direct: break;
  }
  return "convolution, direct";
}

const void* KernelNodes::packed_address(const ggml_tensor* weight, const WeightRows& rows, Algorithm algorithm) {
  if (PackedWeights::Data packed = packed_->find(weight, algorithm)) {
    held_.push_back(packed);
    return packed->data();
  }
  Unpacked& unpacked = unpacked_[{weight, algorithm}];
  if (unpacked.data.size() == 0) unpacked = {rows, AlignedBytes(kernels_.packed_size(algorithm, &rows))};
  return unpacked.data.data();
}

size_t KernelNodes::unpacked_bytes() const {
  size_t bytes = 0;
  for (const auto& [key, unpacked] : unpacked_) bytes += unpacked.data.size();
  return bytes;
}

void KernelNodes::allocate() {
  for (auto& [key, unpacked] : unpacked_) {
    held_.push_back(packed_->add(key.first, unpacked.rows, key.second, std::move(unpacked.data)));
  }
  unpacked_.clear();
  if (device_.is_cpu()) {
    scratch_ = AlignedBytes(scratch_size_);
    work_.scratch = scratch_.data();
  } else {
    gpu_scratch_.reset(ggml_backend_alloc_buffer(device_.backend(), scratch_size_));
    if (!gpu_scratch_) fail(ErrorCode::out_of_memory, "no memory for temporary data on {}", device_.name());
    work_.scratch = static_cast<unsigned char*>(ggml_backend_buffer_get_base(gpu_scratch_.get()));
    work_.stream = device_.stream();
  }
  for (const auto& node : nodes_) node->bind();
}

}  // namespace kandinsky
