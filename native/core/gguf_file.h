// Reads the header of a GGUF file, trusting nothing in it: every count, length, type, name and offset is checked against
// the file before it is used. ggml's own reader is not used because it aborts the process on some bad input.
//
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian)
#pragma once

#include <string>
#include <vector>

#include "core/config.h"
#include "core/types.h"

namespace kandinsky {

struct GgufTensor {
  std::string name;
  Type type = Type::f32;
  std::vector<int64_t> shape;  // outermost dimension first: the reverse of ggml's ne
  uint64_t offset = 0;         // absolute, in bytes
  uint64_t bytes = 0;
};

struct GgufContent {
  Metadata metadata;
  std::string stamp;                // of the file (core/file.h)
  std::vector<GgufTensor> tensors;  // in the file's order; no two overlap, all lie inside the file
};

/// Throws file_not_found, or bad_file with the path, what is wrong and where (byte position in the header).
GgufContent read_gguf(const std::string& path);

}  // namespace kandinsky
