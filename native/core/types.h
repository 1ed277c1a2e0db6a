// Element types as files, JavaScript and ggml name them, and the stored layout of convolution kernels.
//
// ggml.h stays out of this header so that native/addon can use it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kandinsky {

enum class Type {
  f32, f16, bf16, q8_0, q6_k, q5_k, q4_k, q5_0, q4_0,     // weights; may also be a target
  f64, i64, i32, i16, i8, u8, boolean, f8_e4m3, f8_e5m2,  // only ever stored in a source file
};

/// "f32", "q4_K" … exactly as the public API spells them. Throws invalid_argument for anything else.
Type parse_type(std::string_view name);
const char* type_name(Type type);

/// Elements per quantization block (1 for plain types) and bytes per block.
int64_t block_size(Type type);
int64_t block_bytes(Type type);
bool is_quantized(Type type);

/// Bytes of a tensor. Throws bad_file when the innermost dimension is not a whole number of blocks or the size
/// overflows.
uint64_t tensor_bytes(Type type, const std::vector<int64_t>& shape);
int64_t element_count(const std::vector<int64_t>& shape);  // throws bad_file on overflow or a negative dimension
std::string shape_text(const std::vector<int64_t>& shape);  // "[384, 4, 3, 3]"

/// A convolution kernel [out, in, kh, kw] is stored as a matrix [out, kh*kw*in], input channel fastest: a row is long
/// enough for block quantization and channels-last kernels read it contiguously. Other shapes are stored as they are.
/// That of a transposed convolution, [in, out, kh, kw], becomes [kh*kw*out, in]: a product gives all of the pixels that one
/// pixel adds to.
std::vector<int64_t> matrix_shape(const std::vector<int64_t>& shape, bool transposed = false);

}  // namespace kandinsky
