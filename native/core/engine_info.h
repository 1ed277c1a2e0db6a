// What this build of the engine is and what it can compute on, for bug reports and for picking a device.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kandinsky {

struct EngineInfo {
  std::string ggml_version;
  std::string cpu_variant;  // which of our kernels compute on the CPU, e.g. "avx512_bf16" (core/cpu_kernels.h)
  bool has_cuda = false;    // a CUDA device can be used
};
EngineInfo engine_info();

struct DeviceInfo {
  std::string name;         // what Device takes: "cpu", "cuda", "cuda:1"
  std::string kind;         // "cpu" or "cuda"
  std::string description;  // e.g. the processor's name
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;
};
std::vector<DeviceInfo> list_devices();

}  // namespace kandinsky
