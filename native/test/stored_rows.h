// Rows of weights of every stored type, of random bytes.
#pragma once

#include <random>
#include <vector>

#include "kernels/kernels.h"

namespace kandinsky::test {

struct StoredCase {
  const char* name;
  StoredType type;
  int values, bytes;        // of a block
  std::vector<int> halves;  // where it has numbers of 16 bits
};

inline const StoredCase stored_cases[] = {
    {"f16", StoredType::f16, 1, 2, {0}},          {"bf16", StoredType::bf16, 1, 2, {0}},
    {"q8_0", StoredType::q8_0, 32, 34, {0}},      {"q6_K", StoredType::q6_k, 256, 210, {208}},
    {"q5_K", StoredType::q5_k, 256, 176, {0, 2}}, {"q4_K", StoredType::q4_k, 256, 144, {0, 2}},
    {"q5_0", StoredType::q5_0, 32, 22, {0}},      {"q4_0", StoredType::q4_0, 32, 18, {0}}};

inline std::vector<unsigned char> random_rows(const StoredCase& c, int rows, int values) {
  std::mt19937 generator(1);
  const size_t blocks = static_cast<size_t>(rows) * values / c.values;
  std::vector<unsigned char> bytes(blocks * c.bytes);
  for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(generator());
  for (size_t block = 0; block < blocks; ++block) {
    for (const int half : c.halves) bytes[block * c.bytes + half + 1] &= 0xbf;  // below 2, and no NaN
  }
  return bytes;
}

}  // namespace kandinsky::test
