// What several kernels share. Sizes that decide on how work is cut are constants, not those of the card at hand: sums are
// added up in the same order everywhere, so that a seed gives the same picture on every card.
#pragma once

#include <math.h>
#include <stddef.h>

#include "kernels/cuda/primitives.h"
#include "kernels/kernels.h"

namespace kandinsky::cuda {

constexpr float kLog2e = 1.44269504f;

template <typename T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}
__host__ __device__ constexpr int round_up(int a, int b) { return ceil_div(a, b) * b; }
__host__ __device__ constexpr int min_of(int a, int b) { return a < b ? a : b; }
__host__ __device__ constexpr int max_of(int a, int b) { return a > b ? a : b; }

/// Whether vectors of `size` bytes may be read from rows that begin there, `stride` bytes apart.
inline bool is_aligned(const void* rows, int64_t stride, int size) {
  return reinterpret_cast<uintptr_t>(rows) % size == 0 && stride % size == 0;
}

/// Parts of the scratch memory; without any (base null) only their sizes are added up.
struct Arena {
  unsigned char* base;
  size_t used;
  template <typename T>
  T* take(size_t count) {
    T* memory = reinterpret_cast<T*>(base + used);
    used += ceil_div(count * sizeof(T), size_t{256}) * 256;
    return memory;
  }
};

__device__ inline float silu(float x) { return x / (1 + exp2_fast(-kLog2e * x)); }

__device__ inline float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::silu: return silu(x);
    case Activation::gelu: return 0.5f * x * (1 + erff(x * 0.70710678f));
    case Activation::quick_gelu: return x / (1 + exp2_fast(-1.702f * kLog2e * x));
    case Activation::none: break;
  }
  return x;
}

/// The sum of a warp's values, in every lane.
__device__ inline float warp_sum(float x) {
  for (int mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}

}  // namespace kandinsky::cuda
