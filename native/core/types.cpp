#include "core/types.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/ggml_type.h"

namespace kandinsky {

namespace {

struct TypeRow {
  Type type;
  const char* name;
  ggml_type ggml;  // GGML_TYPE_COUNT: ggml has no such type
};

// In the order of enum Type.
constexpr TypeRow type_rows[] = {
    {Type::f32, "f32", GGML_TYPE_F32},       {Type::f16, "f16", GGML_TYPE_F16},
    {Type::bf16, "bf16", GGML_TYPE_BF16},    {Type::q8_0, "q8_0", GGML_TYPE_Q8_0},
    {Type::q6_k, "q6_K", GGML_TYPE_Q6_K},    {Type::q5_k, "q5_K", GGML_TYPE_Q5_K},
    {Type::q4_k, "q4_K", GGML_TYPE_Q4_K},    {Type::q5_0, "q5_0", GGML_TYPE_Q5_0},
    {Type::q4_0, "q4_0", GGML_TYPE_Q4_0},    {Type::f64, "f64", GGML_TYPE_F64},
    {Type::i64, "i64", GGML_TYPE_I64},       {Type::i32, "i32", GGML_TYPE_I32},
    {Type::i16, "i16", GGML_TYPE_I16},       {Type::i8, "i8", GGML_TYPE_I8},
    {Type::u8, "u8", GGML_TYPE_COUNT},       {Type::boolean, "bool", GGML_TYPE_COUNT},
    {Type::f8_e4m3, "f8_e4m3", GGML_TYPE_COUNT}, {Type::f8_e5m2, "f8_e5m2", GGML_TYPE_COUNT},
};

const TypeRow& row(Type type) {
  return type_rows[static_cast<size_t>(type)];
}

}  // namespace

Type parse_type(std::string_view name) {
  for (const TypeRow& candidate : type_rows) {
    if (candidate.name == name) return candidate.type;
  }
  fail(ErrorCode::invalid_argument, "Expected a tensor type such as \"f16\" or \"q8_0\" but received \"{}\"",
       name.substr(0, 80));
}

const char* type_name(Type type) {
  return row(type).name;
}

ggml_type to_ggml_type(Type type) {
  const ggml_type result = row(type).ggml;
  if (result == GGML_TYPE_COUNT) fail(ErrorCode::internal, "ggml has no tensor type {}", type_name(type));
  return result;
}

std::optional<Type> from_ggml_type(uint32_t type) {
  for (const TypeRow& candidate : type_rows) {
    if (candidate.ggml == type && candidate.ggml != GGML_TYPE_COUNT) return candidate.type;
  }
  return std::nullopt;
}

int64_t block_size(Type type) {
  return row(type).ggml == GGML_TYPE_COUNT ? 1 : ggml_blck_size(row(type).ggml);
}

int64_t block_bytes(Type type) {
  return row(type).ggml == GGML_TYPE_COUNT ? 1 : static_cast<int64_t>(ggml_type_size(row(type).ggml));
}

bool is_quantized(Type type) {
  return block_size(type) > 1;
}

int64_t element_count(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 0 || (size > 0 && count > std::numeric_limits<int64_t>::max() / size))
      fail(ErrorCode::bad_file, "Shape {} is negative or too large", shape_text(shape));
    count *= size;
  }
  return count;
}

uint64_t tensor_bytes(Type type, const std::vector<int64_t>& shape) {
  const int64_t count = element_count(shape);
  const int64_t row_length = shape.empty() ? 1 : shape.back();
  if (row_length % block_size(type) != 0)
    fail(ErrorCode::bad_file, "Expected rows of a multiple of {} values for type {} but received shape {}", block_size(type), type_name(type), shape_text(shape));
  const int64_t blocks = count / block_size(type);
  if (blocks > std::numeric_limits<int64_t>::max() / block_bytes(type))
    fail(ErrorCode::bad_file, "Shape {} is too large", shape_text(shape));
  return static_cast<uint64_t>(blocks * block_bytes(type));
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::vector<int64_t> matrix_shape(const std::vector<int64_t>& shape, bool transposed) {
  if (shape.size() != 4) return shape;
  if (transposed) return {element_count({shape[1], shape[2], shape[3]}), shape[0]};
  return {shape[0], element_count({shape[1], shape[2], shape[3]})};
}

}  // namespace kandinsky
