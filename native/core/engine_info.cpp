#include "core/engine_info.h"

#include "core/cpu_kernels.h"
#include "core/device.h"

namespace kandinsky {

EngineInfo engine_info() {
  EngineInfo info;
  info.ggml_version = ggml_version();
  info.cpu_variant = cpu_kernels().name;
  for (const AvailableDevice& device : available_devices()) {
    if (device.kind == "cuda") info.has_cuda = true;
  }
  return info;
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
