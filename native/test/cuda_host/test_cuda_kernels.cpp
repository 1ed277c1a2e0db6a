// What test_kernels.cpp cannot ask of every table: the layout of packed weights, and how shared memory is read.
#include <cuda_host.h>

#include "kernels/cuda/table.h"
#include "kernels/reference.h"
#include "test/check.h"
#include "test/stored_rows.h"
#include "test/thread_team.h"

namespace kandinsky {
namespace {

using namespace test;

void check_packed(const StoredCase& c, int out, int taps, int in) {
  const std::vector<unsigned char> stored = random_rows(c, out, taps * in);
  const int64_t row_bytes = static_cast<int64_t>(taps) * in / c.values * c.bytes;
  const WeightRows rows = {stored.data(), row_bytes, c.type, out, taps, in};
  const KernelTable& kernels = cuda_kernels();
  std::vector<uint16_t> packed(kernels.packed_size(Algorithm::direct, &rows) / sizeof(uint16_t));
  run_kernel(kernels.pack, PackArgs{Algorithm::direct, rows, packed.data()}, 1);
  std::vector<float> row(static_cast<size_t>(taps) * in);
  const uint16_t* actual = packed.data();
  size_t wrong = 0;
  for (int o = 0; o < out; ++o) {
    reference::expander(c.type)(stored.data() + o * row_bytes, row.data(), taps * in);
    for (int tap = 0; tap < taps; ++tap)
      for (int i = 0; i < even(in); ++i) {
        const float value = i < in ? row[static_cast<size_t>(tap) * in + i] : 0;
        wrong += *actual++ != static_cast<uint16_t>(cuda::pack_bf16(value, 0));
      }
  }
  CHECK_MESSAGE(wrong == 0, std::string(c.name) + ": " + std::to_string(wrong) + " values of " + std::to_string(in) + " channels differ");
}

}  // namespace

TEST(cuda_packs_weights_of_every_type) {
  for (const StoredCase& c : stored_cases) {
    check_packed(c, 3, 9, 256);
    check_packed(c, 2, 256, 3);  // rows of whole blocks, channels that are not
    if (c.values > 1) continue;
    check_packed(c, 5, 9, 10);
    check_packed(c, 4, 1, 77);
  }
}

TEST(cuda_matrices_in_shared_memory_are_read_without_bank_conflicts) {
  const KernelTable& kernels = cuda_kernels();
  const std::vector<uint16_t> src(1024 * 256);
  const std::vector<unsigned char> stored(256 * 256 / 32 * 34);
  std::vector<float> dst(1024 * 256);
  cuda_host::bank_conflicts = 0;
  for (const int rows : {40, 140, 600}) {
    GemmArgs args = {};
    args.src = src.data();
    args.src_stride = 256;
    args.rows = rows;
    args.weights = {Algorithm::direct, nullptr, {stored.data(), 256 / 32 * 34, StoredType::q8_0, 256, 1, 256}};
    args.f32_dst = true;
    args.dst = dst.data();
    args.dst_stride = 256;
    run_kernel(kernels.gemm, args, 1);
  }
  for (const int head_dim : {64, 128, 256}) {
    AttentionArgs args = {};
    args.q = args.k = args.v = src.data();
    args.q_stride = args.kv_stride = args.dst_stride = head_dim;
    args.batch = args.heads = 1;
    args.head_dim = head_dim;
    args.queries = args.tokens = 70;
    args.f32_dst = true;
    args.dst = dst.data();
    run_kernel(kernels.attention, args, 1);
  }
  CHECK_MESSAGE(cuda_host::bank_conflicts == 0, std::to_string(cuda_host::bank_conflicts) + " bank conflicts");
}

}  // namespace kandinsky
