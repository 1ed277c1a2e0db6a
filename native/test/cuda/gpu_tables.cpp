// The kernels' tests and benchmark on a real GPU. They hand ordinary memory to kernels, so all of this program's memory is
// one managed region, which processor and GPU see at the same addresses.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>

#include "kernels/cuda/table.h"
#include "test/tested_kernels.h"

namespace {

constexpr size_t region_size = size_t{12} << 30, line = 256;  // address space: only what is used is ever there
constexpr int classes = 40;

[[noreturn]] void stop(const char* what, cudaError_t error) {
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::_Exit(1);
}

/// Powers of two, freed ones first.
class Region {
 public:
  void* take(size_t size) {
    const int size_class = class_of(size);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!base_) start();
    if (Free* block = free_[size_class]) {
      free_[size_class] = block->next;
      return block;
    }
    const size_t bytes = line << size_class;
    if (used_ + bytes > region_size) throw std::bad_alloc();
    void* block = base_ + used_;
    used_ += bytes;
    return block;
  }
  void give(void* memory, size_t size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const int size_class = class_of(size);
    free_[size_class] = new (memory) Free{free_[size_class]};
  }
  bool has(const void* memory) const { return memory >= base_ && memory < base_ + used_; }

 private:
  struct Free {
    Free* next;
  };
  static int class_of(size_t size) {
    int size_class = 0;
    while (line << size_class < size) ++size_class;
    return size_class;
  }
  void start() {
    void* memory = nullptr;
    const cudaError_t error = cudaMallocManaged(&memory, region_size);
    if (error != cudaSuccess) stop("no memory that processor and GPU share", error);
    base_ = static_cast<unsigned char*>(memory);
  }
  std::mutex mutex_;
  unsigned char* base_ = nullptr;
  size_t used_ = 0;
  Free* free_[classes] = {};
};

Region& region() {
  alignas(Region) static unsigned char memory[sizeof(Region)];
  static Region* const made = new (memory) Region();
  return *made;
}

/// In front of what operator new returns; the runtime's own memory, which it takes while the region starts, is malloc's.
struct Header {
  size_t size;
};
thread_local bool is_starting = false;

void* allocate(size_t size) {
  const size_t whole = size + line;
  void* memory = nullptr;
  if (is_starting) {
    if (posix_memalign(&memory, line, whole) != 0) throw std::bad_alloc();
  } else {
    is_starting = true;
    memory = region().take(whole);
    is_starting = false;
  }
  new (memory) Header{whole};
  return static_cast<unsigned char*>(memory) + line;
}

void release(void* p) {
  if (!p) return;
  void* memory = static_cast<unsigned char*>(p) - line;
  if (region().has(memory)) {
    region().give(memory, static_cast<Header*>(memory)->size);
  } else {
    std::free(memory);
  }
}

}  // namespace

void* operator new(size_t size) { return allocate(size); }
void* operator new(size_t size, std::align_val_t) { return allocate(size); }
void operator delete(void* p) noexcept { release(p); }
void operator delete(void* p, size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { release(p); }

namespace kandinsky::test {

std::vector<const KernelTable*> tested_kernels() { return {&cuda_kernels()}; }

double tested_multiplications() { return 1e8; }

void wait_for_kernels() {
  cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) stop("a kernel could not be launched", error);
  error = cudaDeviceSynchronize();
  if (error != cudaSuccess) stop("a kernel failed", error);
}

}  // namespace kandinsky::test
