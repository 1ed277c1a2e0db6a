// Reading and writing GGUF headers: what is refused, how, and that nothing crashes.
#include <csignal>
#include <filesystem>
#ifndef _WIN32
#include <sys/resource.h>
#endif

#include "core/gguf_file.h"
#include "core/gguf_writer.h"
#include "test/check.h"
#include "test/gguf_bytes.h"

namespace kandinsky {

using test::GgufBytes;
using test::temporary_path;

namespace {

constexpr uint32_t f32 = 0, q4_0 = 2, q4_1 = 3;                                            // ggml's types
constexpr uint32_t u8 = 0, u32 = 4, boolean = 7, string = 8, array = 9, u64 = 10, i64 = 11;  // GGUF's value types

GgufContent read(const std::string& bytes) {
  const std::string path = temporary_path("case.gguf");
  test::write_bytes(path, bytes);
  return read_gguf(path);
}

GgufContent read(const GgufBytes& file) {
  return read(file.bytes());
}

GgufBytes with_data(size_t bytes) {
  GgufBytes file;
  file.data.assign(bytes, '\0');
  return file;
}

/// A file with every value type, written by write_gguf.
Metadata all_values() {
  return {{"a.bool", true},
          {"a.int", int64_t{-5}},
          {"a.big", (int64_t{1} << 53) - 1},
          {"a.real", 0.1},
          {"a.text", std::string("h\xc3\xa4userl \xf0\x9f\x8e\xa8")},
          {"a.empty", std::string()},
          {"l.bool", std::vector<bool>{true, false, true}},
          {"l.int", std::vector<int64_t>{1, -2, 3}},
          {"l.real", std::vector<double>{0.5, -1e300}},
          {"l.text", std::vector<std::string>{"one", "", "three"}},
          {"l.none", std::vector<int64_t>{}},
          {"general.architecture", std::string("kandinsky")},
          {"general.quantization_version", int64_t{2}}};
}

TensorSource random_source(const std::string& name, std::vector<int64_t> shape, Type target) {
  TensorSource source;
  source.name = name;
  source.shape = std::move(shape);
  source.target = target;
  source.random = {7, 0.02f, 0.0f};
  return source;
}

std::string small_file() {
  const std::string path = temporary_path("small.gguf");
  write_gguf(path, all_values(),
             {random_source("conv.weight", {3, 8, 3, 3}, Type::f16),
              random_source("linear.weight", {2, 64}, Type::q8_0), random_source("scalar", {}, Type::f32)},
             1, nullptr, nullptr);
  return test::read_bytes(path);
}

}  // namespace

TEST(gguf_round_trip_keeps_every_value_type) {
  GgufContent content = read(small_file());
  CHECK(std::get<int64_t>(content.metadata.at("general.alignment")) == 32);
  content.metadata.erase("general.alignment");
  CHECK(content.metadata == all_values());
  CHECK(content.tensors.size() == 3);
  CHECK(content.tensors[0].name == "conv.weight" && content.tensors[0].type == Type::f16);
  CHECK(content.tensors[0].shape == (std::vector<int64_t>{3, 72}));
  CHECK(content.tensors[1].type == Type::q8_0 && content.tensors[1].bytes == 2 * 2 * 34);
  CHECK(content.tensors[2].shape == std::vector<int64_t>{1});
  for (const GgufTensor& tensor : content.tensors) CHECK(tensor.offset % 32 == 0);
}

TEST(gguf_shapes_are_outermost_first_and_offsets_absolute) {
  GgufBytes file = with_data(96);
  const GgufContent content = read(file.tensor("b", {4, 2}, f32, 64).tensor("a", {2, 3, 1, 1}, f32, 0));
  CHECK(content.tensors[0].shape == (std::vector<int64_t>{2, 4}));
  CHECK(content.tensors[1].shape == (std::vector<int64_t>{1, 1, 3, 2}));
  CHECK(content.tensors[0].offset == content.tensors[1].offset + 64);
  CHECK(content.tensors[0].offset == file.bytes().size() - 96 + 64);
}

TEST(gguf_obeys_another_alignment) {
  GgufBytes file = with_data(128);
  file.alignment = 64;
  file.key("general.alignment", u32, GgufBytes::number<uint32_t>(64)).tensor("a", {4}, f32, 64);
  CHECK(read(file).tensors[0].offset == file.bytes().size() - 64);
  CHECK_THROWS(bad_file, "power of two",
               read(GgufBytes().key("general.alignment", u32, GgufBytes::number<uint32_t>(48))));
  CHECK_THROWS(bad_file, "general.alignment", read(GgufBytes().key("general.alignment", u8, "\x20")));
}

TEST(gguf_says_what_other_files_are) {
  CHECK_THROWS(file_not_found, "missing.gguf", read_gguf(temporary_path("missing.gguf")));
  CHECK_THROWS(bad_file, "folder", read_gguf(std::filesystem::temp_directory_path().string()));
  CHECK_THROWS(bad_file, "empty", read(std::string()));
  CHECK_THROWS(bad_file, "safetensors", read(GgufBytes::text("{\"a\":{}}") + "data"));
  CHECK_THROWS(bad_file, "zip", read(std::string("PK\x03\x04 and more")));
  CHECK_THROWS(bad_file, "pickle", read(std::string("\x80\x02}q")));
  CHECK_THROWS(bad_file, "web page", read(std::string("<!DOCTYPE html><html>")));
  CHECK_THROWS(bad_file, "LFS", read(std::string("version https://git-lfs.github.com/spec/v1\n")));
  CHECK_THROWS(bad_file, "big-endian", read(std::string("FUGG....")));
  CHECK_THROWS(bad_file, "not a GGUF file", read(std::string("anything else")));
}

TEST(gguf_refuses_versions_and_impossible_counts) {
  GgufBytes file;
  for (const uint32_t version : {0u, 1u, 4u, 0x03000000u}) {
    file.version = version;
    CHECK_THROWS(bad_file, "version", read(file));
  }
  file.version = 2;
  CHECK(read(file).tensors.empty());
  file.tensor_count = uint64_t{1} << 60;
  CHECK_THROWS(bad_file, "tensors cannot fit", read(file));
  file.tensor_count = 0;
  file.key_count = ~uint64_t{0};
  CHECK_THROWS(bad_file, "metadata entries cannot fit", read(file));
}

TEST(gguf_refuses_bad_values) {
  const uint64_t huge = uint64_t{1} << 62;
  CHECK_THROWS(bad_file, "unknown value type 13", read(GgufBytes().key("a", 13, "payload")));
  CHECK_THROWS(bad_file, "expected 0 or 1", read(GgufBytes().key("a", boolean, "\x02")));
  CHECK_THROWS(bad_file, "2^53", read(GgufBytes().key("a", u64, GgufBytes::number(uint64_t{1} << 53))));
  CHECK_THROWS(bad_file, "2^53", read(GgufBytes().key("a", i64, GgufBytes::number(INT64_MIN))));
  CHECK_THROWS(bad_file, "at most", read(GgufBytes().key("a", string, GgufBytes::number(huge))));
  CHECK_THROWS(bad_file, "ends inside", read(GgufBytes().key("a", string, GgufBytes::number(uint64_t{1000}))));
  CHECK_THROWS(bad_file, "UTF-8", read(GgufBytes().key("a", string, GgufBytes::text("\xc0\x80"))));
  CHECK_THROWS(bad_file, "UTF-8", read(GgufBytes().key("a", string, GgufBytes::text("\xed\xa0\x80"))));
  CHECK_THROWS(bad_file, "UTF-8", read(GgufBytes().key("a", string, GgufBytes::text("\xe2\x82"))));
  const auto list = [](uint32_t type, uint64_t count) { return GgufBytes::number(type) + GgufBytes::number(count); };
  CHECK_THROWS(bad_file, "array of arrays", read(GgufBytes().key("a", array, list(array, 0))));
  CHECK_THROWS(bad_file, "unknown type", read(GgufBytes().key("a", array, list(99, 0))));
  CHECK_THROWS(bad_file, "cannot fit", read(GgufBytes().key("a", array, list(u8, huge))));
  CHECK_THROWS(bad_file, "appears twice", read(GgufBytes().key("a", u8, "x").key("a", u8, "x")));
  CHECK_THROWS(bad_file, "empty", read(GgufBytes().key("", u8, "xx")));
  CHECK_THROWS(bad_file, "NUL", read(GgufBytes().key(std::string("a\0b", 3), u8, "x")));
}

TEST(gguf_refuses_bad_tensors) {
  const auto refuses = [](const std::string& part, const std::string& name, const std::vector<int64_t>& ne,
                          uint32_t type, uint64_t offset) {
    CHECK_THROWS(bad_file, part, read(with_data(128).tensor(name, ne, type, offset)));
  };
  CHECK(read(with_data(128).tensor("a", {32}, f32, 0)).tensors.size() == 1);
  CHECK(read(with_data(128).tensor(std::string(127, 'n'), {32}, f32, 0)).tensors.size() == 1);
  refuses("at most 127", std::string(128, 'n'), {32}, f32, 0);
  refuses("UTF-8", "\xff", {32}, f32, 0);
  refuses("dimensions", "a", {}, f32, 0);
  refuses("dimensions", "a", {1, 1, 1, 1, 1}, f32, 0);
  refuses("size 0", "a", {0}, f32, 0);
  refuses("size -1", "a", {-1}, f32, 0);
  refuses("too large", "a", {INT64_MAX, 2}, f32, 0);
  refuses("too large", "a", {INT64_MAX / 2, 1}, f32, 0);
  refuses("q4_1", "a", {32}, q4_1, 0);
  refuses("unknown", "a", {32}, 12345, 0);
  refuses("multiple of 32 values", "a", {33}, q4_0, 0);
  refuses("alignment", "a", {4}, f32, 16);
  refuses("incomplete", "a", {33}, f32, 0);
  refuses("incomplete", "a", {1}, f32, 128);
  refuses("incomplete", "a", {1}, f32, ~uint64_t{31});
  CHECK_THROWS(bad_file, "overlap", read(with_data(128).tensor("a", {16}, f32, 0).tensor("b", {1}, f32, 32)));
  CHECK_THROWS(bad_file, "twice", read(with_data(128).tensor("a", {8}, f32, 0).tensor("a", {8}, f32, 32)));
}

TEST(gguf_refuses_truncation_at_every_byte) {
  const std::string bytes = small_file();
  size_t accepted = 0;
  for (size_t size = 0; size < bytes.size(); ++size) {
    try {
      read(bytes.substr(0, size));
      ++accepted;
    } catch (const Error& error) {
      CHECK_MESSAGE(error.code == ErrorCode::bad_file, error.what());
    }
  }
  // Only what the last tensor's padding holds may be missing.
  CHECK_MESSAGE(accepted <= 28, std::to_string(accepted) + " truncated files were accepted");
}

TEST(gguf_survives_corruption_of_every_byte) {
  const std::string original = small_file();
  size_t refused = 0;
  for (size_t at = 0; at < original.size(); ++at) {
    for (const unsigned char change : {0x01, 0x80, 0xff}) {
      std::string bytes = original;
      bytes[at] = static_cast<char>(bytes[at] ^ change);
      try {
        for (const GgufTensor& tensor : read(bytes).tensors)
          CHECK_MESSAGE(tensor.offset + tensor.bytes <= bytes.size(), "a tensor outside the file was accepted");
      } catch (const Error& error) {
        CHECK_MESSAGE(error.code == ErrorCode::bad_file, error.what());
        ++refused;
      }
    }
  }
  CHECK(refused > 100);
}

TEST(gguf_writer_leaves_nothing_behind) {
  namespace fs = std::filesystem;
  const std::string folder = temporary_path("writer");
  fs::create_directories(folder);
  const std::string path = folder + "/out.gguf";
  const auto write = [&](const std::vector<TensorSource>& sources, const std::atomic<bool>* cancel = nullptr) {
    write_gguf(path, {}, sources, 1, cancel, nullptr);
  };
  const TensorSource good = random_source("a", {4, 32}, Type::q8_0);
  TensorSource missing = good;
  missing.path = folder + "/missing.safetensors";
  missing.bytes = 4 * 32 * 4;
  missing.name = "b";
  const std::atomic<bool> cancelled{true};
  CHECK_THROWS(file_not_found, "missing.safetensors", write({good, missing}));
  CHECK_THROWS(aborted, "", write({good}, &cancelled));
  CHECK_THROWS(invalid_argument, "appears twice", write({good, good}));
  CHECK_THROWS(invalid_argument, "tensor name", write({random_source(std::string(128, 'n'), {1}, Type::f32)}));
  CHECK_THROWS(invalid_argument, "multiple of 256", write({random_source("a", {4, 32}, Type::q4_k)}));
  CHECK(fs::is_empty(folder));
  CHECK_THROWS(file_not_found, "folder", write_gguf(folder + "/no/out.gguf", {}, {good}, 1, nullptr, nullptr));
  CHECK_THROWS(bad_file, "folder", write_gguf(folder, {}, {good}, 1, nullptr, nullptr));

  const std::string left = folder + "/.out.gguf.0123456789abcdef.partial";  // by a process that was killed
  test::write_bytes(left, std::string(100000, 'x'));
  test::write_bytes(path + ".partial", "somebody's");
  write({good});
  CHECK(read_gguf(path).tensors.size() == 1);
  CHECK(test::read_bytes(path).size() < 1000);
  CHECK(!fs::exists(left));
  CHECK(test::read_bytes(path + ".partial").size() == 10);
  CHECK(std::distance(fs::directory_iterator(folder), {}) == 2);
}

#ifndef _WIN32
TEST(gguf_writer_reports_a_full_disk) {
  // A limit on the size of files stands in for the disk's end.
  const std::string folder = temporary_path("full");
  std::filesystem::create_directories(folder);
  const std::string path = folder + "/full.gguf";
  rlimit limit;
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small = {1 << 20, limit.rlim_max};
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  CHECK_THROWS(bad_file, "cannot be written",
               write_gguf(path, {}, {random_source("a", {1 << 20}, Type::f32)}, 1, nullptr, nullptr));
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, previous);
  CHECK(std::filesystem::is_empty(folder));
}
#endif

}  // namespace kandinsky
