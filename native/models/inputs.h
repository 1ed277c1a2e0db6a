// Checks of the inputs of a call, shared by the network files.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/host_tensor.h"

namespace kandinsky {

/// The inputs of one call. Each is asked for once with what is expected of it; finish() refuses the rest.
class Inputs {
 public:
  Inputs(const Config& config, const HostTensors& tensors) : component_(config.component()), tensors_(tensors) {}

  static constexpr int64_t any = -1;

  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  /// A float32 tensor whose shape matches; `any` stands for any size of at least 1. Throws invalid_argument (missing,
  /// integers), shape_mismatch.
  const HostTensor& real(const std::string& name, const std::vector<int64_t>& shape);
  const HostTensor& integers(const std::string& name, const std::vector<int64_t>& shape);
  /// int32 of zeros and ones. Throws invalid_argument for other values.
  const HostTensor& mask(const std::string& name, const std::vector<int64_t>& shape);
  /// int32 [B, L] of row numbers of an embedding table. Throws shape_mismatch for rows longer than `max_length`,
  /// invalid_argument for values outside the vocabulary.
  const HostTensor& token_ids(const std::string& name, int64_t vocabulary, int64_t max_length);
  /// "timestep": one value or one for each of `batch`, of either kind.
  const HostTensor& timestep(int64_t batch);
  /// Throws invalid_argument if there is an input that was not asked for.
  void finish() const;

 private:
  const HostTensor& take(const std::string& name);
  void check_shape(const std::string& name, const HostTensor& tensor, const std::vector<int64_t>& shape) const;

  std::string component_;
  const HostTensors& tensors_;
  std::set<std::string> taken_;
};

}  // namespace kandinsky
