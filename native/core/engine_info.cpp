#include "core/engine_info.h"

#include "core/device.h"

namespace kandinsky {

namespace {

std::string cpu_features(ggml_backend_dev_t cpu) {
  const ggml_backend_reg_t backend = ggml_backend_dev_backend_reg(cpu);
  void* address = ggml_backend_reg_get_proc_address(backend, "ggml_backend_get_features");
  if (!address) return "";
  std::string names;
  const auto get_features = reinterpret_cast<ggml_backend_get_features_t>(address);
  for (const ggml_backend_feature* feature = get_features(backend); feature->name; ++feature) {
    if (std::string(feature->value) != "0") names += (names.empty() ? "" : " ") + std::string(feature->name);
  }
  return names;
}

}  // namespace

EngineInfo engine_info() {
  EngineInfo info;
  info.ggml_version = ggml_version();
  for (const AvailableDevice& device : available_devices()) {
    if (device.kind == "cuda") info.has_cuda = true;
    if (device.kind == "cpu") info.cpu_variant = cpu_features(device.handle);
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
