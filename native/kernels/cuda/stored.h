// Weights as files store them (the layouts are ggml-common.h's), 8 at a time: `fetch` reads what 8 values from k on, a
// multiple of 8, are made of, and `expand` makes them, so that a kernel can do other work between the two. Rows of
// ggml's tensors are aligned for every read here.
#pragma once

#include "kernels/cuda/common.h"

namespace kandinsky::cuda {

template <StoredType type>
struct Stored;

/// 8 bytes from an even address.
__device__ inline uint2 fetch_bytes(const unsigned char* p) {
  const uint16_t* halves = reinterpret_cast<const uint16_t*>(p);
  return {halves[0] | static_cast<uint32_t>(halves[1]) << 16, halves[2] | static_cast<uint32_t>(halves[3]) << 16};
}
__device__ inline uint16_t fetch_half(const unsigned char* p) { return *reinterpret_cast<const uint16_t*>(p); }
__device__ inline int byte_of(const uint2& bytes, int i) { return (i < 4 ? bytes.x : bytes.y) >> i % 4 * 8 & 255; }

template <>
struct Stored<StoredType::f32> {
  struct Raw {
    float4 low, high;
  };
  static __device__ Raw fetch(const unsigned char* row, int64_t k) {
    const float4* values = reinterpret_cast<const float4*>(row + 4 * k);
    return {values[0], values[1]};
  }
  static __device__ void expand(const Raw& raw, float* y) {
    const float4 &a = raw.low, &b = raw.high;
    const float values[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
    for (int i = 0; i < 8; ++i) y[i] = values[i];
  }
};

struct Halves {
  using Raw = uint4;
  static __device__ Raw fetch(const unsigned char* row, int64_t k) {
    return *reinterpret_cast<const uint4*>(row + 2 * k);
  }
  static __device__ uint16_t bits(const Raw& raw, int i) {
    const uint32_t pair = i < 2 ? raw.x : i < 4 ? raw.y : i < 6 ? raw.z : raw.w;
    return static_cast<uint16_t>(pair >> i % 2 * 16);
  }
};

template <>
struct Stored<StoredType::f16> : Halves {
  static __device__ void expand(const Raw& raw, float* y) {
#pragma unroll
    for (int i = 0; i < 8; ++i) y[i] = half_to_float(bits(raw, i));
  }
};

template <>
struct Stored<StoredType::bf16> : Halves {
  static __device__ void expand(const Raw& raw, float* y) {
#pragma unroll
    for (int i = 0; i < 8; ++i) y[i] = bf16_to_float(bits(raw, i));
  }
};

/// Per 32 values: a half-precision scale and 32 signed bytes.
template <>
struct Stored<StoredType::q8_0> {
  struct Raw {
    uint2 quants;
    uint16_t scale;
  };
  static __device__ Raw fetch(const unsigned char* row, int64_t k) {
    const unsigned char* block = row + k / 32 * 34;
    return {fetch_bytes(block + 2 + k % 32), fetch_half(block)};
  }
  static __device__ void expand(const Raw& raw, float* y) {
    const float scale = half_to_float(raw.scale);
#pragma unroll
    for (int i = 0; i < 8; ++i) y[i] = scale * static_cast<signed char>(byte_of(raw.quants, i));
  }
};

/// Per 32 values: a half-precision scale, then 16 bytes; byte i has value i in its low half and value i + 16 in its high
/// one, both plus 8.
template <>
struct Stored<StoredType::q4_0> {
  struct Raw {
    uint2 quants;
    uint16_t scale;
    int shift;
  };
  static __device__ Raw fetch(const unsigned char* row, int64_t k) {
    const unsigned char* block = row + k / 32 * 18;
    return {fetch_bytes(block + 2 + k % 16), fetch_half(block), static_cast<int>(k % 32 / 16 * 4)};
  }
  static __device__ void expand(const Raw& raw, float* y) {
    const float scale = half_to_float(raw.scale);
#pragma unroll
    for (int i = 0; i < 8; ++i) y[i] = scale * ((byte_of(raw.quants, i) >> raw.shift & 15) - 8);
  }
};

/// Like q4_0, with a fifth bit of each value between scale and bytes; values are stored plus 16.
template <>
struct Stored<StoredType::q5_0> {
  struct Raw {
    uint2 quants;
    uint16_t scale;
    int shift, fifth;
  };
  static __device__ Raw fetch(const unsigned char* row, int64_t k) {
    const unsigned char* block = row + k / 32 * 22;
    const int fifth = block[2 + k % 32 / 8];
    return {fetch_bytes(block + 6 + k % 16), fetch_half(block), static_cast<int>(k % 32 / 16 * 4), fifth};
  }
  static __device__ void expand(const Raw& raw, float* y) {
    const float scale = half_to_float(raw.scale);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int quant = (byte_of(raw.quants, i) >> raw.shift & 15) | (raw.fifth >> i & 1) << 4;
      y[i] = scale * (quant - 16);
    }
  }
};

/// The head of a q4_K or q5_K block: half-precision factors of scales and minima, and 6 bits of each for every group of
/// 32 values in 12 bytes. Those of groups 0 to 3 are the low 6 bits of bytes 0 to 7; of the others the low 4 bits are
/// halves of bytes 8 to 11 and the high 2 bits are on top of bytes 0 to 7.
struct GroupScale {
  float factor, offset;
  __device__ GroupScale(const uint4& head, int group) {
    const auto byte = [&](int i) { return (i < 4 ? head.y : i < 8 ? head.z : head.w) >> i % 4 * 8 & 255; };
    const int scale = group < 4 ? byte(group) & 63 : (byte(group + 4) & 15) | byte(group - 4) >> 6 << 4;
    const int minimum = group < 4 ? byte(group + 4) & 63 : byte(group + 4) >> 4 | byte(group) >> 6 << 4;
    factor = half_to_float(static_cast<uint16_t>(head.x)) * scale;
    offset = -half_to_float(static_cast<uint16_t>(head.x >> 16)) * minimum;
  }
};

/// Per 256 values: the head, and 128 bytes; of every 32 bytes the low halves are one group of 32 values, the high halves
/// the next.
template <>
struct Stored<StoredType::q4_k> {
  struct Raw {
    uint4 head;
    uint2 quants;
    int group;
  };
  static __device__ Raw fetch(const unsigned char* row, int64_t k) {
    const unsigned char* block = row + k / 256 * 144;
    const int group = static_cast<int>(k % 256 / 32);
    return {*reinterpret_cast<const uint4*>(block),
            *reinterpret_cast<const uint2*>(block + 16 + 32 * (group / 2) + k % 32), group};
  }
  static __device__ void expand(const Raw& raw, float* y) {
    const GroupScale scale(raw.head, raw.group);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      y[i] = fmaf(static_cast<float>(byte_of(raw.quants, i) >> raw.group % 2 * 4 & 15), scale.factor, scale.offset);
    }
  }
};

/// Like q4_K, with 32 bytes before the 128: bit g of byte j is the fifth bit of value j of group g.
template <>
struct Stored<StoredType::q5_k> {
  struct Raw {
    uint4 head;
    uint2 quants, fifths;
    int group;
  };
  static __device__ Raw fetch(const unsigned char* row, int64_t k) {
    const unsigned char* block = row + k / 256 * 176;
    const int group = static_cast<int>(k % 256 / 32);
    return {*reinterpret_cast<const uint4*>(block),
            *reinterpret_cast<const uint2*>(block + 48 + 32 * (group / 2) + k % 32),
            *reinterpret_cast<const uint2*>(block + 16 + k % 32), group};
  }
  static __device__ void expand(const Raw& raw, float* y) {
    const GroupScale scale(raw.head, raw.group);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int fifth = byte_of(raw.fifths, i) >> raw.group & 1;
      const int quant = (byte_of(raw.quants, i) >> raw.group % 2 * 4 & 15) | fifth << 4;
      y[i] = fmaf(static_cast<float>(quant), scale.factor, scale.offset);
    }
  }
};

/// Per 256 values: 128 bytes of low 4 bits, 64 bytes of high 2 bits, 16 signed scales and a half-precision factor of
/// them. Each half of the block has 4 groups of 32 values, which share 64 low bytes (group g: bytes 32 (g % 2) on, low
/// halves of groups 0 and 1) and 32 high ones (bits 2 g on). A scale is for 16 values, which are stored plus 32.
template <>
struct Stored<StoredType::q6_k> {
  struct Raw {
    uint2 low, high;
    uint16_t factor;
    int scale, group;
  };
  static __device__ Raw fetch(const unsigned char* row, int64_t k) {
    const unsigned char* block = row + k / 256 * 210;
    const int in_block = static_cast<int>(k % 256), half = in_block / 128, group = in_block % 128 / 32, j = in_block % 32;
    return {fetch_bytes(block + 64 * half + 32 * (group % 2) + j), fetch_bytes(block + 128 + 32 * half + j),
            fetch_half(block + 208), static_cast<signed char>(block[192 + in_block / 16]), group};
  }
  static __device__ void expand(const Raw& raw, float* y) {
    const float scale = half_to_float(raw.factor) * raw.scale;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int low = byte_of(raw.low, i) >> raw.group / 2 * 4 & 15, high = byte_of(raw.high, i) >> raw.group * 2 & 3;
      y[i] = scale * ((low | high << 4) - 32);
    }
  }
};

/// 8 values as bfloat16.
__device__ inline uint4 narrow(const float (&y)[8]) {
  return {pack_bf16(y[0], y[1]), pack_bf16(y[2], y[3]), pack_bf16(y[4], y[5]), pack_bf16(y[6], y[7])};
}

template <StoredType type>
__device__ inline uint4 expand_bf16(const typename Stored<type>::Raw& raw) {
  float values[8];
  Stored<type>::expand(raw, values);
  return narrow(values);
}

}  // namespace kandinsky::cuda
