#include "models/inputs.h"

#include "core/error.h"
#include "core/types.h"

namespace kandinsky {

namespace {

std::string pattern_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i ? ", " : "") + (shape[i] == Inputs::any ? "*" : std::to_string(shape[i]));
  }
  return text + "]";
}

}  // namespace

const HostTensor& Inputs::take(const std::string& name) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    fail(ErrorCode::invalid_argument, "{}: expected an input \"{}\" but received none", component_, name);
  }
  taken_.insert(name);
  const HostTensor& tensor = found->second;
  const size_t values = tensor.is_int ? tensor.i32.size() : tensor.f32.size();
  if (element_count(tensor.shape) != static_cast<int64_t>(values)) {
    fail(ErrorCode::shape_mismatch, "{}: {} has shape {} but {} values", component_, name, shape_text(tensor.shape), values);
  }
  return tensor;
}

void Inputs::check_shape(const std::string& name, const HostTensor& tensor, const std::vector<int64_t>& shape) const {
  bool matches = tensor.shape.size() == shape.size();
  for (size_t i = 0; matches && i < shape.size(); ++i) {
    matches = shape[i] == any ? tensor.shape[i] >= 1 : tensor.shape[i] == shape[i];
  }
  if (!matches) {
    fail(ErrorCode::shape_mismatch, "{}: expected shape {} for {} but received {}", component_, pattern_text(shape), name, shape_text(tensor.shape));
  }
}

const HostTensor& Inputs::real(const std::string& name, const std::vector<int64_t>& shape) {
  const HostTensor& tensor = take(name);
  if (tensor.is_int) {
    fail(ErrorCode::invalid_argument, "{}: expected float32 values for {} but received int32", component_, name);
  }
  check_shape(name, tensor, shape);
  return tensor;
}

const HostTensor& Inputs::integers(const std::string& name, const std::vector<int64_t>& shape) {
  const HostTensor& tensor = take(name);
  if (!tensor.is_int) {
    fail(ErrorCode::invalid_argument, "{}: expected int32 values for {} but received float32", component_, name);
  }
  check_shape(name, tensor, shape);
  return tensor;
}

const HostTensor& Inputs::mask(const std::string& name, const std::vector<int64_t>& shape) {
  const HostTensor& tensor = integers(name, shape);
  for (const int32_t value : tensor.i32) {
    if (value != 0 && value != 1) {
      fail(ErrorCode::invalid_argument, "{}: expected 0 or 1 in {} but received {}", component_, name, value);
    }
  }
  return tensor;
}

const HostTensor& Inputs::token_ids(const std::string& name, int64_t vocabulary, int64_t max_length) {
  const HostTensor& ids = integers(name, {any, any});
  if (ids.shape[1] > max_length) {
    fail(ErrorCode::shape_mismatch, "{}: expected at most {} tokens in {} but received {}", component_, max_length, name, ids.shape[1]);
  }
  for (const int32_t id : ids.i32) {
    if (id < 0 || id >= vocabulary) {
      fail(ErrorCode::invalid_argument, "{}: expected token ids from 0 to {} in {} but received {}", component_, vocabulary - 1, name, id);
    }
  }
  return ids;
}

const HostTensor& Inputs::timestep(int64_t batch) {
  const HostTensor& tensor = take("timestep");
  check_shape("timestep", tensor, {tensor.shape == std::vector<int64_t>{1} ? 1 : batch});
  return tensor;
}

void Inputs::finish() const {
  for (const auto& [name, tensor] : tensors_) {
    if (!taken_.count(name)) {
      fail(ErrorCode::invalid_argument, "{}: there is no input \"{}\"", component_, name);
    }
  }
}

}  // namespace kandinsky
