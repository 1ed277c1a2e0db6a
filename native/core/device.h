// The processors that ggml can compute on, by the names of the public API: "cpu", "cuda" (the first), "cuda:1".
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "ggml-cpp.h"

struct ggml_threadpool;

namespace kandinsky {

struct CudaLibrary;
struct KernelTable;

/// Prepares ggml once per process: no stack traces, no messages on stderr. Called by everything below; thread-safe.
void init_engine();

/// Loads backends built as libraries (GGML_BACKEND_DL), and that with our CUDA kernels, from an absolute directory. A
/// build with linked-in backends needs no call.
void load_backends(const std::string& directory);

struct AvailableDevice {
  std::string name;
  std::string kind;  // "cpu" or "cuda"
  ggml_backend_dev_t handle;
};
std::vector<AvailableDevice> available_devices();

/// Bytes that can be allocated now, and all; both 0 where the device does not say.
void device_memory(ggml_backend_dev_t device, size_t* free, size_t* total);

/// Cores that this process may use, hyper-threads not counted.
int physical_core_count();

/// One backend instance, with its own worker threads on the CPU. Not re-entrant.
class Device {
 public:
  /// `threads` 0: one per physical core. Throws device_unavailable naming the devices that exist.
  Device(const std::string& name, int threads);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  ggml_backend_t backend() const { return backend_.get(); }
  ggml_backend_dev_t handle() const { return handle_; }
  const std::string& name() const { return name_; }
  bool is_cpu() const { return is_cpu_; }

  /// The kernels by which a GPU computes networks whose matrices are not all float32 (`exact`), or null: then, and for
  /// those, it has ggml's operations only. KANDINSKY_CUDA_KERNELS says otherwise: "off", or "always", exact or not.
  const KernelTable* gpu_kernels(bool exact) const;
  /// On which they are put.
  void* stream() const;
  int threads() const { return threads_; }

  /// How many of the threads the graphs after this run on. CPU only.
  void use_threads(int count);

  /// A flag polled between graph nodes on the CPU; null for none. A GPU graph cannot be interrupted.
  void set_cancel(const std::atomic<bool>* cancel);

 private:
  void start_threads();
  void find_gpu_kernels();

  std::string name_;
  const CudaLibrary* cuda_ = nullptr;  // whose device `handle_` is; null: ggml's own
  ggml_backend_dev_t handle_ = nullptr;
  bool is_cpu_ = false;
  int threads_ = 0;
  ggml_backend_ptr backend_;
  ggml_threadpool* threadpool_ = nullptr;
};

}  // namespace kandinsky
