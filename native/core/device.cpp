#include "core/device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

#include "core/error.h"
#include "core/host_memory.h"
#include "cuda/library.h"
#include "ggml-cpu.h"

namespace kandinsky {

namespace {

void discard_log(ggml_log_level, const char*, void*) {}

bool is_cancelled(void* flag) {
  return static_cast<const std::atomic<bool>*>(flag)->load(std::memory_order_relaxed);
}

/// A function of the backend's own library: with GGML_BACKEND_DL nothing of ggml-cpu can be linked to.
template <typename Function>
Function* backend_function(ggml_backend_dev_t device, const char* name) {
  void* address = ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), name);
  if (!address) fail(ErrorCode::internal, "the ggml backend lacks {}", name);
  return reinterpret_cast<Function*>(address);
}

enum class CudaKernels { off, on, always };

CudaKernels wanted_cuda_kernels() {
  const char* wanted = std::getenv("KANDINSKY_CUDA_KERNELS");
  if (!wanted || !*wanted || std::strcmp(wanted, "on") == 0) return CudaKernels::on;
  if (std::strcmp(wanted, "off") == 0) return CudaKernels::off;
  if (std::strcmp(wanted, "always") == 0) return CudaKernels::always;
  fail(ErrorCode::invalid_argument, "Expected on, off or always for KANDINSKY_CUDA_KERNELS but received {}", wanted);
}

/// The library with our kernels, if it was loaded.
const CudaLibrary* cuda_library() {
  ggml_backend_reg_t registry = ggml_backend_reg_by_name(cuda_library_name);
  return registry ? static_cast<const CudaLibrary*>(ggml_backend_reg_get_proc_address(registry, cuda_library_name)) : nullptr;
}

}  // namespace

void init_engine() {
  static std::once_flag once;
  std::call_once(once, [] {
#ifdef _WIN32
    _putenv_s("GGML_NO_BACKTRACE", "1");
#else
    setenv("GGML_NO_BACKTRACE", "1", 0);
#endif
    ggml_log_set(discard_log, nullptr);
  });
}

void load_backends(const std::string& directory) {
  init_engine();
  ggml_backend_load_all_from_path(directory.c_str());
#ifdef _WIN32
  const char* file = "kandinsky-cuda.dll";
#else
  const char* file = "libkandinsky-cuda.so";
#endif
  const auto path = std::filesystem::u8path(directory) / file;
  if (ggml_backend_reg_by_name("CUDA") && std::filesystem::exists(path)) ggml_backend_load(path.u8string().c_str());
}

std::vector<AvailableDevice> available_devices() {
  init_engine();
  std::vector<AvailableDevice> devices;
  int cuda_count = 0;
  for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
    ggml_backend_dev_t handle = ggml_backend_dev_get(i);
    if (ggml_backend_dev_type(handle) == GGML_BACKEND_DEVICE_TYPE_CPU) {
      devices.push_back({"cpu", "cpu", handle});
    } else if (std::strcmp(ggml_backend_reg_name(ggml_backend_dev_backend_reg(handle)), "CUDA") == 0) {
      devices.push_back({"cuda:" + std::to_string(cuda_count++), "cuda", handle});
    }
  }
  return devices;
}

void device_memory(ggml_backend_dev_t device, size_t* free, size_t* total) {
  ggml_backend_dev_memory(device, free, total);
  if (ggml_backend_dev_type(device) != GGML_BACKEND_DEVICE_TYPE_CPU) return;
  if (const auto available = available_host_memory()) *free = std::min<uint64_t>(*free, *available);
}

int physical_core_count() {
  const int logical = std::max(1u, std::thread::hardware_concurrency());
#ifdef __linux__
  // Hyper-threads of one core list the same siblings; only cores in the affinity mask count.
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return logical;
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
    std::string siblings;
    if (std::getline(file, siblings)) cores.insert(siblings);
  }
  if (!cores.empty()) return static_cast<int>(cores.size());
#endif
  return logical;
}

Device::Device(const std::string& name, int threads) : name_(name == "cuda" ? "cuda:0" : name) {
  std::string existing;
  for (const AvailableDevice& device : available_devices()) {
    existing += (existing.empty() ? "" : ", ") + device.name;
    if (device.name == name_) {
      handle_ = device.handle;
      is_cpu_ = device.kind == "cpu";
    }
  }
  if (!handle_) {
    fail(ErrorCode::device_unavailable, "Expected one of the available devices ({}) but received \"{}\"", existing, name);
  }
  if (!is_cpu_) find_gpu_kernels();
  backend_.reset(ggml_backend_dev_init(handle_, nullptr));
  if (!backend_) fail(ErrorCode::device_unavailable, "device {} could not be initialized", name_);
  threads_ = std::min(threads > 0 ? threads : physical_core_count(), GGML_MAX_N_THREADS);
  if (is_cpu_) start_threads();
}

Device::~Device() {
  backend_.reset();
  if (threadpool_) backend_function<decltype(ggml_threadpool_free)>(handle_, "ggml_threadpool_free")(threadpool_);
}

void Device::find_gpu_kernels() {
  const CudaLibrary* library = wanted_cuda_kernels() == CudaKernels::off ? nullptr : cuda_library();
  ggml_backend_dev_t device = library ? library->device(handle_) : nullptr;
  if (!device) return;
  cuda_ = library;
  handle_ = device;
}

const KernelTable* Device::gpu_kernels(bool exact) const {
  return cuda_ && (!exact || wanted_cuda_kernels() == CudaKernels::always) ? &cuda_->kernels() : nullptr;
}

void* Device::stream() const { return cuda_ ? cuda_->stream(backend()) : nullptr; }

// Without a pool of its own, a CPU backend starts and joins threads for every graph.
void Device::start_threads() {
  ggml_threadpool_params params = ggml_threadpool_params_default(threads_);
  params.poll = 0;  // between graphs threads sleep: polling, they would take a core each from what runs there
  threadpool_ = backend_function<decltype(ggml_threadpool_new)>(handle_, "ggml_threadpool_new")(&params);
  if (!threadpool_) fail(ErrorCode::out_of_memory, "{} worker threads could not be started", threads_);
  use_threads(threads_);
  backend_function<decltype(ggml_backend_cpu_set_threadpool)>(handle_, "ggml_backend_cpu_set_threadpool")(
      backend(), threadpool_);
}

void Device::use_threads(int count) {
  backend_function<decltype(ggml_backend_cpu_set_n_threads)>(handle_, "ggml_backend_set_n_threads")(backend(), count);
}

void Device::set_cancel(const std::atomic<bool>* cancel) {
  if (!is_cpu_) return;
  backend_function<decltype(ggml_backend_cpu_set_abort_callback)>(handle_, "ggml_backend_set_abort_callback")(
      backend(), cancel ? is_cancelled : nullptr, const_cast<std::atomic<bool>*>(cancel));
}

}  // namespace kandinsky
