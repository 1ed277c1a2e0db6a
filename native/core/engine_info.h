// What this build of the engine is, for bug reports and for picking a device.
#pragma once

#include <string>

namespace kandinsky {

struct EngineInfo {
  std::string ggml_version;
  std::string cpu_variant;  // instruction sets that ggml's CPU code uses here, e.g. "SSE3 AVX AVX2 F16C FMA"
  bool has_cuda = false;    // a CUDA device can be used
};
EngineInfo engine_info();

}  // namespace kandinsky
