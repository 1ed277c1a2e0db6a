// Weight rows of any stored type as bfloat16 [out][taps][even(in)], zeros behind an odd number of channels: what
// product.cu multiplies by.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/stored.h"

namespace kandinsky::cuda {

namespace {

constexpr int kThreads = 256;

/// Where channels come in eights: every thread 8 values.
template <StoredType type>
__global__ void __launch_bounds__(kThreads) pack_eights(WeightRows w, uint4* dst, int eights) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= static_cast<int64_t>(w.out_features) * eights) return;
  const unsigned char* row = static_cast<const unsigned char*>(w.data) + i / eights * w.row_bytes;
  dst[i] = expand_bf16<type>(Stored<type>::fetch(row, i % eights * 8));
}

template <StoredType type>
__device__ float single_value(const unsigned char* row, int64_t k) {
  if constexpr (type == StoredType::f32) return reinterpret_cast<const float*>(row)[k];
  if constexpr (type == StoredType::f16) return half_to_float(fetch_half(row + 2 * k));
  if constexpr (type == StoredType::bf16) return bf16_to_float(fetch_half(row + 2 * k));
  if constexpr (type != StoredType::f32 && type != StoredType::f16 && type != StoredType::bf16) {
    float values[8];
    Stored<type>::expand(Stored<type>::fetch(row, k / 8 * 8), values);
    return values[k % 8];
  }
}

/// Anywhere else: every thread a pair.
template <StoredType type>
__global__ void __launch_bounds__(kThreads) pack_pairs(WeightRows w, uint32_t* dst) {
  const int64_t pairs = (w.in_features + 1) / 2, i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= w.out_features * w.taps * pairs) return;
  const unsigned char* row = static_cast<const unsigned char*>(w.data) + i / pairs / w.taps * w.row_bytes;
  const int channel = static_cast<int>(i % pairs) * 2;
  const int64_t k = i / pairs % w.taps * w.in_features + channel;
  const float high = channel + 1 < w.in_features ? single_value<type>(row, k + 1) : 0.0f;
  dst[i] = pack_bf16(single_value<type>(row, k), high);
}

template <StoredType type>
void pack_type(const WeightRows& w, uint16_t* dst, void* stream) {
  const bool is_plain = type == StoredType::f32 || type == StoredType::f16 || type == StoredType::bf16;
  if (w.in_features % 8 == 0 && (!is_plain || is_aligned(w.data, w.row_bytes, 16))) {
    const int eights = w.taps * w.in_features / 8;
    const int64_t blocks = ceil_div<int64_t>(static_cast<int64_t>(w.out_features) * eights, kThreads);
    launch(pack_eights<type>, {static_cast<unsigned>(blocks)}, kThreads, 0, stream, w, reinterpret_cast<uint4*>(dst), eights);
  } else {
    const int64_t pairs = static_cast<int64_t>(w.out_features) * w.taps * ((w.in_features + 1) / 2);
    launch(pack_pairs<type>, {static_cast<unsigned>(ceil_div<int64_t>(pairs, kThreads))}, kThreads, 0, stream, w, reinterpret_cast<uint32_t*>(dst));
  }
}

}  // namespace

int64_t packed_values(const WeightRows& w) { return static_cast<int64_t>(w.out_features) * w.taps * even(w.in_features); }

void expand_weights(const WeightRows& w, uint16_t* dst, void* stream) {
  switch (w.type) {
    case StoredType::f32: return pack_type<StoredType::f32>(w, dst, stream);
    case StoredType::f16: return pack_type<StoredType::f16>(w, dst, stream);
    case StoredType::bf16: return pack_type<StoredType::bf16>(w, dst, stream);
    case StoredType::q8_0: return pack_type<StoredType::q8_0>(w, dst, stream);
    case StoredType::q6_k: return pack_type<StoredType::q6_k>(w, dst, stream);
    case StoredType::q5_k: return pack_type<StoredType::q5_k>(w, dst, stream);
    case StoredType::q4_k: return pack_type<StoredType::q4_k>(w, dst, stream);
    case StoredType::q5_0: return pack_type<StoredType::q5_0>(w, dst, stream);
    case StoredType::q4_0: return pack_type<StoredType::q4_0>(w, dst, stream);
  }
}

size_t packed_size(Algorithm, const WeightRows* rows) { return packed_values(*rows) * sizeof(uint16_t); }

void pack(const PackArgs* args, WorkContext* work, int ith, int) {
  if (ith == 0) expand_weights(args->rows, static_cast<uint16_t*>(args->dst), work->stream);
}

}  // namespace kandinsky::cuda
