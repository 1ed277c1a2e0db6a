// Threads that call a CPU kernel together, for tests and benchmarks (in the engine ggml's threads do that), and the
// 64-byte aligned memory that kernels want.
#pragma once

#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "kernels/kernels.h"
#include "test/tested_kernels.h"

namespace kandinsky::test {

struct FreeAligned {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t(64)); }
};

/// `count` values on a cache-line boundary, not initialized.
template <typename T>
class Aligned {
 public:
  explicit Aligned(size_t count = 0)
      : data_(static_cast<T*>(::operator new(count * sizeof(T) + 64, std::align_val_t(64)))), size_(count) {}
  T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  T& operator[](size_t i) const { return data_.get()[i]; }

 private:
  std::unique_ptr<T, FreeAligned> data_;
  size_t size_;
};

/// A kernel and its scratch memory, run by `nth` threads: run() is one call.
template <typename Args>
class KernelRun {
 public:
  KernelRun(const Kernel<Args>& kernel, const Args& args, int nth)
      : kernel_(kernel), args_(args), nth_(nth), scratch_(kernel.scratch_size(&args, nth)) {
    std::memset(scratch_.data(), 0xff, scratch_.size());  // NaN: a kernel must not read what it has not written
    work_.scratch = scratch_.data();
  }

  void run(int repeats = 1) {
    std::vector<std::thread> threads;
    const auto body = [&](int ith) {
      for (int i = 0; i < repeats; ++i) kernel_.run(&args_, &work_, ith, nth_);
    };
    for (int i = 1; i < nth_; ++i) threads.emplace_back(body, i);
    body(0);
    for (std::thread& thread : threads) thread.join();
    wait_for_kernels();
  }

 private:
  Kernel<Args> kernel_;
  Args args_;
  int nth_;
  Aligned<unsigned char> scratch_;
  WorkContext work_;
};

template <typename Args>
void run_kernel(const Kernel<Args>& kernel, const Args& args, int nth) {
  KernelRun<Args>(kernel, args, nth).run();
}

}  // namespace kandinsky::test
