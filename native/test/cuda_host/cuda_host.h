// A GPU for tests without one: kernels of native/kernels/cuda, compiled as plain C++, run block by block. The threads of a
// block are fibers; a barrier or a warp's operation switches to another of them, chosen at random, until all have come.
//
// What it is strict about: shared memory is NaN until it is written; an asynchronous copy poisons its target at once
// and lands only where its own thread waits for it; addresses must be aligned and inside the block's shared memory;
// lanes of a warp must meet at the same operation; a barrier that some threads never reach is an error. Device memory
// is ordinary memory: the address sanitizer checks it.
// What it cannot show: races between warps that a switch only at barriers hides, the rounding of tensor cores, speed.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __syncthreads() ::kandinsky::cuda_host::synchronize()
#define threadIdx (::kandinsky::cuda_host::current_thread->index)
#define blockIdx (::kandinsky::cuda_host::current_block)

struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

namespace kandinsky::cuda_host {

constexpr int warp_lanes = 32;

struct Point {
  unsigned x, y, z;
};
struct Thread {
  Point index;
  int warp, lane;
};
extern Thread* current_thread;
extern Point current_block;
/// ldmatrix instructions whose rows lie in the same banks: each costs the time of two.
extern long bank_conflicts;

unsigned char* shared_bytes();
/// The `count` bytes at an address of shared memory; fails unless they are inside and it is a multiple of `alignment`.
unsigned char* shared_at(uint32_t address, size_t count, size_t alignment, const char* what);

void synchronize();
/// Waits for the other lanes, the last of which calls `compute` with what all of them passed.
void meet_warp(const char* operation, void* operands, const std::function<void(void* const* lanes)>& compute);
void copy_async(uint32_t target, const void* source, size_t count, bool is_valid);
void commit_copies();
void wait_for_copies(int groups_left);

void run_grid(Point grid, int threads, size_t shared_size, const std::function<void()>& kernel);

}  // namespace kandinsky::cuda_host

// ---- the primitives of kernels/cuda/primitives.h
namespace kandinsky::cuda {

struct Grid {
  unsigned x = 1, y = 1, z = 1;
};

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), Grid grid, int threads, size_t shared_size, void*, Arguments... arguments) {
  cuda_host::run_grid({grid.x, grid.y, grid.z}, threads, shared_size, [&] { kernel(arguments...); });
}

inline unsigned char* shared_memory() { return cuda_host::shared_bytes(); }
inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(p) - cuda_host::shared_bytes());
}

inline void cp_async_16(uint32_t target, const void* source, bool is_valid) {
  cuda_host::copy_async(target, source, 16, is_valid);
}
inline void cp_async_4(uint32_t target, const void* source, bool is_valid) {
  cuda_host::copy_async(target, source, 4, is_valid);
}
inline void cp_async_commit() { cuda_host::commit_copies(); }
template <int groups_left>
void cp_async_wait() {
  cuda_host::wait_for_copies(groups_left);
}

void ldmatrix_x4(uint32_t (&result)[4], uint32_t address);
void ldmatrix_x4_transposed(uint32_t (&result)[4], uint32_t address);
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
float shuffle_xor(float value, int mask);

float half_to_float(uint16_t bits);
float bf16_to_float(uint16_t bits);
uint32_t pack_bf16(float low, float high);
inline float exp2_fast(float x) { return std::exp2(x); }
inline float rsqrt_fast(float x) { return 1 / std::sqrt(x); }

}  // namespace kandinsky::cuda
