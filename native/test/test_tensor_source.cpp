// Reading weights: conversion, packing, quantization, random values.
#include <algorithm>
#include <cstring>
#include <limits>

#include "core/ggml_type.h"
#include "core/gguf_file.h"
#include "core/gguf_writer.h"
#include "core/tensor_source.h"
#include "core/cpu_kernels.h"
#include "test/check.h"
#include "test/gguf_bytes.h"

namespace kandinsky {

using test::temporary_path;

namespace {

/// A file of exactly these values, and the source that describes it.
template <typename T>
TensorSource stored(const std::vector<T>& values, Type type, std::vector<int64_t> shape, Type target) {
  TensorSource source;
  source.name = "conv.weight";
  source.path = temporary_path("values.bin");
  test::write_bytes(source.path,
                    "head" + std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)));
  source.offset = 4;
  source.bytes = values.size() * sizeof(T);
  source.type = type;
  source.shape = std::move(shape);
  source.target = target;
  return source;
}

std::string read_all(const TensorSource& source, int threads = 1) {
  SourceFiles files;
  std::string bytes;
  read_tensor(files, source, threads, nullptr, [&](uint64_t offset, const void* data, size_t size) {
    CHECK(offset == bytes.size());
    bytes.append(static_cast<const char*>(data), size);
  });
  CHECK(bytes.size() == target_bytes(source));
  return bytes;
}

std::vector<float> read_floats(TensorSource source) {
  source.target = Type::f32;
  const std::string bytes = read_all(source);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TensorSource random_source(std::vector<int64_t> shape, Type target, uint64_t seed = 1) {
  TensorSource source;
  source.name = "random";
  source.shape = std::move(shape);
  source.target = target;
  source.random = {seed, 0.5f, 1.0f};
  return source;
}

/// Through a file of the given type and back: the largest difference, relative to the largest value.
double round_trip_error(Type type) {
  const TensorSource source = random_source({8, 512}, type);
  const std::string path = temporary_path("quantized.gguf");
  write_gguf(path, {}, {source}, 2, nullptr, nullptr);
  const GgufTensor written = read_gguf(path).tensors.at(0);
  TensorSource back = source;
  back.path = path;
  back.offset = written.offset;
  back.bytes = written.bytes;
  back.type = type;
  const std::vector<float> expected = read_floats(source), actual = read_floats(back);
  float error = 0, largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error = std::max(error, std::fabs(expected[i] - actual[i]));
    largest = std::max(largest, std::fabs(expected[i]));
  }
  return error / largest;
}

}  // namespace

TEST(tensor_source_packs_kernels_with_the_input_channel_fastest) {
  std::vector<float> values(2 * 3 * 2 * 2);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const TensorSource source = stored(values, Type::f32, {2, 3, 2, 2}, Type::f32);
  CHECK(!is_stored_as_target(source));
  CHECK(target_shape(source) == (std::vector<int64_t>{2, 12}));
  const std::vector<float> packed = read_floats(source);
  for (int o = 0; o < 2; ++o) {
    for (int i = 0; i < 3; ++i) {
      for (int k = 0; k < 4; ++k) CHECK(packed[(o * 4 + k) * 3 + i] == values[(o * 3 + i) * 4 + k]);
    }
  }
}

TEST(tensor_source_keeps_1x1_kernels_and_matrices_as_they_lie) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{2, 3, 1, 1}, {2, 3}, {6}, {1, 2, 3}}) {
    const TensorSource source = stored(values, Type::f32, shape, Type::f32);
    CHECK_MESSAGE(is_stored_as_target(source), shape_text(shape));
    CHECK_MESSAGE(read_floats(source) == values, shape_text(shape));
  }
}

TEST(tensor_source_reads_every_stored_type) {
  const std::vector<float> expected = {1, 0, 3};
  CHECK(read_floats(stored<double>({1, 0, 3}, Type::f64, {3}, Type::f32)) == expected);
  CHECK(read_floats(stored<int64_t>({1, 0, 3}, Type::i64, {3}, Type::f32)) == expected);
  CHECK(read_floats(stored<int32_t>({1, 0, 3}, Type::i32, {3}, Type::f32)) == expected);
  CHECK(read_floats(stored<int16_t>({1, 0, 3}, Type::i16, {3}, Type::f32)) == expected);
  CHECK(read_floats(stored<int8_t>({1, 0, 3}, Type::i8, {3}, Type::f32)) == expected);
  CHECK(read_floats(stored<uint8_t>({1, 0, 3}, Type::u8, {3}, Type::f32)) == expected);
  CHECK(read_floats(stored<uint16_t>({0x3c00, 0, 0x4200}, Type::f16, {3}, Type::f32)) == expected);
  CHECK(read_floats(stored<uint16_t>({0x3f80, 0, 0x4040}, Type::bf16, {3}, Type::f32)) == expected);
}

TEST(tensor_source_reads_8_bit_floats) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  // OCP 8-bit floating point, table 2: largest, smallest normal and subnormal, ones, zero, NaN
  const auto e4m3 = read_floats(stored<uint8_t>({0x7e, 0x08, 0x01, 0x38, 0xb8, 0x00, 0xff}, Type::f8_e4m3, {7}, Type::f32));
  const float values4[] = {448, 0x1p-6f, 0x1p-9f, 1, -1, 0, nan};
  const auto e5m2 = read_floats(stored<uint8_t>({0x7b, 0x04, 0x01, 0x3c, 0xbc, 0x7c, 0x7f}, Type::f8_e5m2, {7}, Type::f32));
  const float values5[] = {57344, 0x1p-14f, 0x1p-16f, 1, -1, inf, nan};
  for (int i = 0; i < 7; ++i) {
    CHECK(e4m3[i] == values4[i] || (std::isnan(e4m3[i]) && std::isnan(values4[i])));
    CHECK(e5m2[i] == values5[i] || (std::isnan(e5m2[i]) && std::isnan(values5[i])));
  }
}

TEST(tensor_source_reads_strided_tensors) {
  // [2, 3] of a [3, 2] lying the other way round
  TensorSource turned = stored<float>({0, 1, 2, 3, 4, 5}, Type::f32, {2, 3}, Type::f32);
  turned.stride = {1, 2};
  CHECK(!is_stored_as_target(turned));
  CHECK(read_floats(turned) == (std::vector<float>{0, 2, 4, 1, 3, 5}));
  // every other column; the file ends with the last one
  TensorSource sparse = stored<float>({0, 1, 2, 3, 4, 5, 6}, Type::f32, {2, 2}, Type::f32);
  sparse.stride = {4, 2};
  CHECK(read_floats(sparse) == (std::vector<float>{0, 2, 4, 6}));
  // a kernel, channels last, in more pieces than one
  std::vector<float> values(40 * 300 * 9);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 2039);
  TensorSource kernel = stored<float>(values, Type::f32, {40, 300, 3, 3}, Type::f32);
  kernel.stride = {2700, 1, 900, 300};
  CHECK(read_floats(kernel) == values);
  for (const std::vector<int64_t>& wrong : {std::vector<int64_t>{1}, {2, 2}, {1, int64_t{1} << 60}}) {
    turned.stride = wrong;
    CHECK_THROWS(bad_file, "tensor conv.weight", check_source(turned));
  }
}

TEST(tensor_source_round_trip_errors_are_within_half_a_step) {
  // Half a quantization step of a block whose range is the whole tensor's; k-quants store their block scales in 4 to
  // 6 bits, which adds to it.
  CHECK(round_trip_error(Type::f32) == 0);
  CHECK_CLOSE(round_trip_error(Type::f16), 0, 1.0 / 2048);
  CHECK_CLOSE(round_trip_error(Type::bf16), 0, 1.0 / 256);
  CHECK_CLOSE(round_trip_error(Type::q8_0), 0, 0.6 / 127);
  CHECK_CLOSE(round_trip_error(Type::q6_k), 0, 1.2 / 32);
  CHECK_CLOSE(round_trip_error(Type::q5_k), 0, 1.2 / 32);
  CHECK_CLOSE(round_trip_error(Type::q5_0), 0, 1.1 / 16);
  CHECK_CLOSE(round_trip_error(Type::q4_k), 0, 1.2 / 16);
  CHECK_CLOSE(round_trip_error(Type::q4_0), 0, 1.1 / 8);
  CHECK(round_trip_error(Type::q8_0) < round_trip_error(Type::q4_0));
}

TEST(kernels_expand_rows_as_ggml_does) {
  const std::pair<Type, StoredType> types[] = {{Type::f16, StoredType::f16},   {Type::bf16, StoredType::bf16},
                                               {Type::q8_0, StoredType::q8_0}, {Type::q6_k, StoredType::q6_k},
                                               {Type::q5_k, StoredType::q5_k}, {Type::q4_k, StoredType::q4_k},
                                               {Type::q5_0, StoredType::q5_0}, {Type::q4_0, StoredType::q4_0}};
  for (const auto& [type, stored] : types) {
    const std::string row = read_all(random_source({1024}, type));
    std::vector<float> values(1024), expected(1024);
    cpu_kernels().expander(stored)(row.data(), values.data(), 1024);
    ggml_get_type_traits(to_ggml_type(type))->to_float(row.data(), expected.data(), 1024);
    CHECK_MESSAGE(values == expected, type_name(type));
  }
}

TEST(tensor_source_quantizes_tiny_values_to_zero) {
  for (const Type type : {Type::q8_0, Type::q6_k, Type::q5_k, Type::q4_k, Type::q5_0, Type::q4_0}) {
    for (const float tiny : {1e-33f, -1e-38f, 1e-45f, 1e-21f}) {
      std::vector<float> values(512, tiny);
      for (int i = 256; i < 512; i += 2) values[i] = 1;  // and beside values that matter
      TensorSource source = stored<float>(values, Type::f32, {2, 256}, type);
      const std::string bytes = read_all(source);
      std::vector<float> back(512);
      ggml_get_type_traits(to_ggml_type(type))->to_float(bytes.data(), back.data(), 512);
      for (int i = 0; i < 512; ++i) CHECK_CLOSE(back[i], i >= 256 && i % 2 == 0 ? 1 : 0, 0.04);
    }
  }
}

TEST(tensor_source_results_do_not_depend_on_threads) {
  // More than one piece, and one that no thread count divides.
  const TensorSource source = random_source({257, 96, 3, 67}, Type::q8_0);
  const std::string expected = read_all(source, 1);
  for (const int threads : {2, 3, 7}) CHECK(read_all(source, threads) == expected);
}

TEST(tensor_source_random_values_follow_their_seed) {
  const std::vector<float> values = read_floats(random_source({1000, 100}, Type::f32));
  double sum = 0, squares = 0;
  for (const float value : values) sum += value;
  for (const float value : values) squares += (value - 1.0) * (value - 1.0);
  CHECK_CLOSE(sum / values.size(), 1.0, 0.01);
  CHECK_CLOSE(std::sqrt(squares / values.size()), 0.5, 0.01);
  CHECK(read_floats(random_source({1000, 100}, Type::f32)) == values);
  CHECK(read_floats(random_source({100000}, Type::f32)) == values);
  const std::vector<float> others = read_floats(random_source({100000}, Type::f32, 2));
  size_t equal = 0;
  for (size_t i = 0; i < values.size(); ++i) equal += values[i] == others[i];
  CHECK(equal < 100);
}

TEST(tensor_source_refuses_what_a_type_cannot_hold) {
  for (const float wrong : {std::nanf(""), std::numeric_limits<float>::infinity(), 1e6f}) {
    std::vector<float> values(256, 1.0f);
    values[200] = wrong;
    for (const Type target : {Type::f16, Type::q8_0, Type::q6_k, Type::q5_k, Type::q4_k, Type::q5_0, Type::q4_0})
      CHECK_THROWS(bad_file, "conv.weight", read_all(stored(values, Type::f32, {1, 256}, target)));
  }
}

TEST(tensor_source_checks_what_it_is_told) {
  const TensorSource good = stored(std::vector<float>(64), Type::f32, {2, 32}, Type::q8_0);
  const auto refuses = [&](ErrorCode code, const std::string& part, const std::function<void(TensorSource&)>& change) {
    TensorSource source = good;
    change(source);
    test::check_throws(code, part, [&] { read_all(source); }, __FILE__, __LINE__);
  };
  CHECK(read_all(good).size() == 2 * 34);
  refuses(ErrorCode::bad_file, "bytes were given", [](TensorSource& source) { source.bytes = 255; });
  refuses(ErrorCode::bad_file, "bytes were given", [](TensorSource& source) { source.shape = {2, 33}; });
  refuses(ErrorCode::bad_file, "dimensions", [](TensorSource& source) { source.shape = {2, -32}; });
  refuses(ErrorCode::bad_file, "dimensions", [](TensorSource& source) { source.shape = {1, 1, 1, 2, 32}; });
  refuses(ErrorCode::bad_file, "too large", [](TensorSource& source) { source.shape = {INT64_MAX, INT64_MAX}; });
  refuses(ErrorCode::bad_file, "too short", [](TensorSource& source) { source.offset = 5; });
  refuses(ErrorCode::bad_file, "too short", [](TensorSource& source) { source.offset = uint64_t{1} << 60; });
  refuses(ErrorCode::invalid_argument, "multiple of 256", [](TensorSource& source) { source.target = Type::q4_k; });
  refuses(ErrorCode::invalid_argument, "cannot be stored", [](TensorSource& source) { source.target = Type::i32; });
  refuses(ErrorCode::file_not_found, "nowhere", [](TensorSource& source) { source.path = temporary_path("nowhere"); });
}

TEST(tensor_source_notices_a_file_that_changes) {
  const TensorSource source = stored(std::vector<float>(64), Type::f32, {2, 32}, Type::f32);
  SourceFiles files;
  char byte;
  files.read(source.path, 0, &byte, 1);
  test::write_bytes(source.path, std::string(1000, 'x'));
  CHECK_THROWS(bad_file, "changed", files.read(source.path, 0, &byte, 1));
}

TEST(tensor_source_maps_files) {
  const TensorSource source = stored(std::vector<float>{1, 2, 3}, Type::f32, {3}, Type::f32);
  std::shared_ptr<const MappedFile> file;
  {
    SourceFiles files;
    file = files.map(source.path);
  }
  CHECK(file->size() == 4 + 3 * sizeof(float));
  CHECK(std::memcmp(file->data(), "head", 4) == 0);
  file->check();
}

TEST(mapped_files_that_become_shorter_are_zero_and_say_so) {
  const std::string path = temporary_path("shrinking.bin");
  test::write_bytes(path, std::string(100000, 'x'));
  SourceFiles files;
  const auto file = files.map(path);
  test::write_bytes(path, "short");
#ifndef _WIN32  // nobody may write to a file that is open there
  CHECK(file->data()[99999] == std::byte{0});  // would be SIGBUS
  CHECK(file->data()[0] == std::byte{'s'});
  CHECK_THROWS(bad_file, "changed while it was in use (it had 100000 bytes and now has 5)", file->check());
  // also if it grows back to the same size and time
  test::write_bytes(path, std::string(100000, 'x'));
  CHECK_THROWS(bad_file, "", file->check());
#endif
}

TEST(tensor_source_notices_a_file_that_was_replaced_since_its_header_was_read) {
  TensorSource source = stored(std::vector<float>{1, 2, 3}, Type::f32, {3}, Type::f32);
  source.stamp = File(source.path).stamp();
  CHECK(read_floats(source) == (std::vector<float>{1, 2, 3}));
  source.stamp = "16@1";
  CHECK_THROWS(bad_file, "changed since its header was read", read_all(source));
}

TEST(tensor_source_takes_no_memory_for_what_a_file_only_promises) {
  TensorSource source = stored(std::vector<float>{1}, Type::f32, {1 << 14, 1 << 14, 64, 64}, Type::f16);
  source.bytes = tensor_bytes(source.type, source.shape);
  source.transposed = true;  // turned as a whole: 4 TB
  CHECK_THROWS(bad_file, "bytes of conv.weight at position 4 but it has 8 in all", read_all(source));
}

}  // namespace kandinsky
