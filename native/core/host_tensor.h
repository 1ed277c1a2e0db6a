// Tensors in ordinary memory, as they cross the engine's border.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace kandinsky {

/// A tensor in host memory, reference order (NCHW), float32 or int32 (token ids, masks).
struct HostTensor {
  std::vector<int64_t> shape;
  std::vector<float> f32;
  std::vector<int32_t> i32;  // used instead of f32 when is_int
  bool is_int = false;
};
using HostTensors = std::map<std::string, HostTensor>;

}  // namespace kandinsky
