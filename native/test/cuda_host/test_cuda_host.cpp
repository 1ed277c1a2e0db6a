// What the emulated GPU is strict about: each of these mistakes would pass on a lenient one.
#include <cuda_host.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "test/check.h"

namespace kandinsky {
namespace {

using namespace cuda;

std::string error_of(int threads, size_t shared_size, const std::function<void()>& kernel) {
  try {
    cuda_host::run_grid({1, 1, 1}, threads, shared_size, kernel);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

void check_error(const std::string& error, const std::string& part) {
  CHECK_MESSAGE(error.find(part) != std::string::npos, "expected \"" + part + "\" but received \"" + error + "\"");
}

}  // namespace

TEST(cuda_host_threads_of_a_block_meet_at_barriers_in_any_order) {
  std::vector<int> order;
  int sum = 0;
  cuda_host::run_grid({2, 1, 1}, 64, 64 * sizeof(int), [&] {
    int* const values = reinterpret_cast<int*>(shared_memory());
    if (blockIdx.x == 0) order.push_back(static_cast<int>(threadIdx.x));
    values[threadIdx.x] = static_cast<int>(threadIdx.x);
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int i = 0; i < 64; ++i) sum += values[i];
    }
  });
  CHECK(sum == 2 * 63 * 64 / 2);
  CHECK(order.size() == 64 && order[0] + 1 != order[1]);
}

TEST(cuda_host_a_barrier_that_some_threads_never_reach_is_an_error) {
  check_error(error_of(64, 0, [] {
                if (threadIdx.x != 5) __syncthreads();
              }),
              "waits at __syncthreads for threads that never come; 1 have ended");
}

TEST(cuda_host_lanes_of_a_warp_must_meet_at_the_same_operation) {
  check_error(error_of(32, 1024, [] {
                uint32_t r[4];
                if (threadIdx.x < 16) {
                  shuffle_xor(1, 1);
                } else {
                  ldmatrix_x4(r, 16 * threadIdx.x);
                }
              }),
              "lanes of a warp are at");
}

TEST(cuda_host_shared_memory_is_not_a_number_until_it_is_written) {
  bool is_poisoned = false;
  cuda_host::run_grid({1, 1, 1}, 32, 4, [&] { is_poisoned = std::isnan(*reinterpret_cast<float*>(shared_memory())); });
  CHECK(is_poisoned);
}

TEST(cuda_host_an_asynchronous_copy_lands_only_where_it_is_waited_for) {
  alignas(16) const float source[4] = {1, 2, 3, 4};
  float early = 0, first = 0, second = 0, zero = 1;
  cuda_host::run_grid({1, 1, 1}, 32, 48, [&] {
    if (threadIdx.x != 0) return;
    const float* values = reinterpret_cast<float*>(shared_memory());
    cp_async_16(0, source, true);
    cp_async_commit();
    cp_async_16(16, source, true);
    cp_async_4(32, source, false);
    cp_async_commit();
    early = values[0];
    cp_async_wait<1>();
    first = values[0];
    second = values[4];
    cp_async_wait<0>();
    zero = values[8];
  });
  CHECK(std::isnan(early));
  CHECK(first == 1);
  CHECK(std::isnan(second));
  CHECK(zero == 0);
}

TEST(cuda_host_addresses_outside_of_shared_memory_or_misaligned_are_errors) {
  alignas(16) static const unsigned char source[32] = {};
  check_error(error_of(32, 64, [] { cp_async_16(56, source, true); }), "not a multiple of 16");
  check_error(error_of(32, 64, [] { cp_async_16(64, source, true); }), "cp.async at 64 of 64 bytes");
  check_error(error_of(32, 64, [] { cp_async_16(0, source + 8, true); }), "from an address");
  check_error(error_of(32, 256, [] {
                uint32_t r[4];
                ldmatrix_x4(r, 16 * threadIdx.x);
              }),
              "ldmatrix at 256 of 256 bytes");
}

TEST(cuda_host_counts_rows_of_a_matrix_in_the_same_banks) {
  cuda_host::bank_conflicts = 0;
  const auto load = [](int row_bytes) {
    cuda_host::run_grid({1, 1, 1}, 32, 4096, [=] {
      uint32_t r[4];
      ldmatrix_x4(r, threadIdx.x * row_bytes);
    });
  };
  load(16);
  CHECK(cuda_host::bank_conflicts == 0);
  load(128);
  CHECK(cuda_host::bank_conflicts == 4);
  cuda_host::bank_conflicts = 0;
}

TEST(cuda_host_a_warp_multiplies_matrices_as_ptx_lays_them_out) {
  // a[i][k] = i + 16 k and b[k][j] = 1 for k = j, so that the product is a's first 8 columns.
  float result[16][8];
  cuda_host::run_grid({1, 1, 1}, 32, 1024, [&] {
    const int lane = static_cast<int>(threadIdx.x);
    uint16_t* const a = reinterpret_cast<uint16_t*>(shared_memory());  // [16][16], then b as [8 columns][16]
    for (int i = lane; i < 256; i += 32) a[i] = static_cast<uint16_t>(pack_bf16(static_cast<float>(i / 16 + 16 * (i % 16)), 0));
    for (int i = lane; i < 128; i += 32) a[256 + i] = static_cast<uint16_t>(pack_bf16(i / 16 == i % 16 ? 1.0f : 0.0f, 0));
    __syncthreads();
    uint32_t left[4], right[4];
    ldmatrix_x4(left, lane % 16 * 32 + lane / 16 * 16);
    ldmatrix_x4(right, 512 + lane % 8 * 32 + lane / 8 % 2 * 16);
    float c[4] = {};
    mma_bf16(c, left, right[0], right[1]);
    for (int i = 0; i < 4; ++i) result[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = c[i];
  });
  bool is_right = true;
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 8; ++j) is_right = is_right && result[i][j] == static_cast<float>(i + 16 * j);
  CHECK(is_right);
}

}  // namespace kandinsky
