// Rows of every type that weights are stored in, to float32: ggml's block layouts (ggml-common.h), little-endian.
//
// Quants are first spread over bytes, 16 at a time in the compiler's own vectors, which every instruction set here has
// (left to loops over bytes, GCC 12 does them one by one), then widened and scaled.

typedef uint64_t Words __attribute__((vector_size(16)));
typedef int8_t Bytes __attribute__((vector_size(16)));

INLINE Words every_byte(uint64_t x) { return Words{x * 0x0101010101010101u, x * 0x0101010101010101u}; }

/// Of each of 16 bytes the bits that `mask` has, after a shift by `shift`.
INLINE Words bit_fields(const unsigned char* bytes, int shift, uint64_t mask) {
  Words words;
  memcpy(&words, bytes, sizeof words);
  return words >> shift & every_byte(mask);
}

INLINE void store_quants(int8_t* quants, Words words, int minus) {
  const Bytes bytes = (Bytes)words - (Bytes)every_byte(minus);
  memcpy(quants, &bytes, sizeof bytes);
}

INLINE float half_to_float(const unsigned char* p) {
  uint16_t half;
  memcpy(&half, p, sizeof half);
  // The exponent's bias differs by 112; multiplying by that also makes subnormal halves normal.
  const uint32_t bits = (uint32_t)(half & 0x7fff) << 13 | (uint32_t)(half & 0x8000) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value * 0x1p112f;
}

/// `count` quants times `scale`.
INLINE void scale_quants(const int8_t* quants, int count, float scale, float* values) {
  for (int i = 0; i < count; i += kLanes) vstore(values + i, vmul(vload_int8(quants + i), vset1(scale)));
}

/// Numbers of 16 bits, which `load` widens.
template <vf (*load)(const uint16_t*)>
static void expand_halves(const void* row, float* values, int64_t count) {
  const uint16_t* halves = (const uint16_t*)row;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) vstore(values + i, load(halves + i));
  if (i == count) return;
  uint16_t rest[kLanes] = {0};  // what lies behind the last row may not be there to read
  memcpy(rest, halves + i, (count - i) * sizeof *rest);
  vstore_part(values + i, load(rest), (int)(count - i));
}

/// Per 32 values: a half-precision scale, then signed bytes.
static void expand_q8_0(const void* row, float* values, int64_t count) {
  const unsigned char* block = (const unsigned char*)row;
  for (int64_t i = 0; i < count; i += 32, block += 34) {
    scale_quants((const int8_t*)block + 2, 32, half_to_float(block), values + i);
  }
}

/// Per 32 values: a half-precision scale, then 16 bytes; byte i has value i in its low half and value i + 16 in its
/// high one, both plus 8.
static void expand_q4_0(const void* row, float* values, int64_t count) {
  const unsigned char* block = (const unsigned char*)row;
  for (int64_t i = 0; i < count; i += 32, block += 18) {
    int8_t quants[32];
    for (int high = 0; high < 2; ++high) store_quants(quants + 16 * high, bit_fields(block + 2, 4 * high, 15), 8);
    scale_quants(quants, 32, half_to_float(block), values + i);
  }
}

/// 16 bits as bytes that are 16 or 0.
INLINE Words spread_bits(const unsigned char* bits) {
  // Byte j of each word keeps bit j; adding 0x7f carries it, wherever it is, to the byte's highest bit.
  const Words words = Words{bits[0] * 0x0101010101010101u, bits[1] * 0x0101010101010101u} & 0x8040201008040201u;
  return ((words + every_byte(0x7f)) & every_byte(0x80)) >> 3;
}

/// Like q4_0, with a fifth bit of each value between scale and bytes; values are stored plus 16.
static void expand_q5_0(const void* row, float* values, int64_t count) {
  const unsigned char* block = (const unsigned char*)row;
  for (int64_t i = 0; i < count; i += 32, block += 22) {
    int8_t quants[32];
    for (int high = 0; high < 2; ++high) {
      const Words low_bits = bit_fields(block + 6, 4 * high, 15);
      store_quants(quants + 16 * high, low_bits | spread_bits(block + 2 + 2 * high), 16);
    }
    scale_quants(quants, 32, half_to_float(block), values + i);
  }
}

/// One of the 8 groups of 32 values of a q4_K or q5_K block. Its scale and minimum have 6 bits each, in the 12 bytes
/// from the fifth on: those of groups 0 to 3 are the low 6 bits of bytes 0 to 7; of the others the low 4 bits are halves
/// of bytes 8 to 11 and the high 2 bits are on top of bytes 0 to 7. The block begins with the factors of both.
INLINE void scale_group(const unsigned char* block, int group, const int8_t* quants, float* values) {
  const unsigned char* s = block + 4;
  const int scale = group < 4 ? s[group] & 63 : (s[group + 4] & 15) | (s[group - 4] >> 6) << 4;
  const int minimum = group < 4 ? s[group + 4] & 63 : s[group + 4] >> 4 | (s[group] >> 6) << 4;
  const vf factor = vset1(half_to_float(block) * scale), offset = vset1(-half_to_float(block + 2) * minimum);
  for (int i = 0; i < 32; i += kLanes) vstore(values + i, vfma(vload_int8(quants + i), factor, offset));
}

/// Per 256 values: half-precision factors of scales and minima, 12 bytes of scales and minima, and 128 bytes; of every
/// 32 bytes the low halves are one group of 32 values, the high halves the next.
static void expand_q4_k(const void* row, float* values, int64_t count) {
  const unsigned char* block = (const unsigned char*)row;
  for (int64_t i = 0; i < count; i += 256, block += 144) {
    for (int group = 0; group < 8; ++group) {
      const unsigned char* bytes = block + 16 + 32 * (group / 2);
      int8_t quants[32];
      for (int j = 0; j < 32; j += 16) store_quants(quants + j, bit_fields(bytes + j, 4 * (group % 2), 15), 0);
      scale_group(block, group, quants, values + i + 32 * group);
    }
  }
}

/// Like q4_K, with 32 bytes before the 128: bit g of byte j is the fifth bit of value j of group g.
static void expand_q5_k(const void* row, float* values, int64_t count) {
  const unsigned char* block = (const unsigned char*)row;
  for (int64_t i = 0; i < count; i += 256, block += 176) {
    for (int group = 0; group < 8; ++group) {
      const unsigned char* bytes = block + 48 + 32 * (group / 2);
      int8_t quants[32];
      for (int j = 0; j < 32; j += 16) {
        const Words fifth = bit_fields(block + 16 + j, group, 1) << 4;
        store_quants(quants + j, bit_fields(bytes + j, 4 * (group % 2), 15) | fifth, 0);
      }
      scale_group(block, group, quants, values + i + 32 * group);
    }
  }
}

/// Per 256 values: 128 bytes of low 4 bits, 64 bytes of high 2 bits, 16 signed scales and a half-precision factor of
/// them. Each half of the block has 4 groups of 32 values, which share 64 low bytes (group g: bytes 32 (g % 2) on, low
/// halves of groups 0 and 1) and 32 high ones (bits 2 g on). A scale is for 16 values, which are stored plus 32.
static void expand_q6_k(const void* row, float* values, int64_t count) {
  const unsigned char* block = (const unsigned char*)row;
  for (int64_t i = 0; i < count; i += 256, block += 210) {
    const float factor = half_to_float(block + 208);
    for (int part = 0; part < 16; ++part) {
      const int half = part / 8, g = part % 8 / 2, j = 16 * (part % 2);
      const Words low = bit_fields(block + 64 * half + 32 * (g % 2) + j, 4 * (g / 2), 15);
      const Words high = bit_fields(block + 128 + 32 * half + j, 2 * g, 3) << 4;
      int8_t quants[16];
      store_quants(quants, low | high, 32);
      scale_quants(quants, 16, factor * (int8_t)block[192 + part], values + i + 16 * part);
    }
  }
}

// In the order of StoredType.
constexpr ExpandRow kExpanders[] = {nullptr,     expand_halves<vload_half>, expand_halves<vload_bf16>,
                                    expand_q8_0, expand_q6_k,               expand_q5_k,
                                    expand_q4_k, expand_q5_0,               expand_q4_0};
constexpr int64_t kBytesPer256[] = {1024, 512, 512, 272, 210, 176, 144, 176, 144};

static ExpandRow expander(StoredType type) { return kExpanders[(int)type]; }
