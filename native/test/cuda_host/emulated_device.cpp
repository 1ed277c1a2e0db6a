#include "test/cuda_host/emulated_device.h"

#include <cstdlib>

#include "core/device.h"
#include "ggml-backend-impl.h"
#include "ggml-cpu.h"

extern "C" ggml_backend_reg_t ggml_backend_init(void);  // cuda/backend.cpp

namespace kandinsky::test {

namespace {

// The CPU's device under the name that ggml-cuda has.
ggml_backend_device device;
ggml_backend_reg registry = {GGML_BACKEND_API_VERSION,
                             {[](ggml_backend_reg_t) { return "CUDA"; }, [](ggml_backend_reg_t) { return size_t{1}; },
                              [](ggml_backend_reg_t, size_t) { return &device; }, nullptr},
                             nullptr};

}  // namespace

void emulate_cuda() {
  init_engine();
  device = *ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  device.reg = &registry;
  device.iface.get_type = [](ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; };
  device.iface.init_backend = [](ggml_backend_dev_t, const char* parameters) {
    ggml_backend_t backend = ggml_backend_dev_init(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), parameters);
    ggml_backend_cpu_set_n_threads(backend, 1);
    return backend;
  };
  ggml_backend_register(&registry);
  ggml_backend_register(ggml_backend_init());
}

}  // namespace kandinsky::test
