// Builds GGUF files byte by byte, so that tests can make what no writer would write.
#pragma once

#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace kandinsky::test {

struct GgufBytes {
  uint32_t version = 3;
  uint64_t tensor_count = 0, key_count = 0;
  std::string keys, tensors, data;
  uint64_t alignment = 32;

  template <typename T>
  static std::string number(T value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static std::string text(const std::string& value) { return number<uint64_t>(value.size()) + value; }

  /// `value` follows the type as it is.
  GgufBytes& key(const std::string& name, uint32_t type, const std::string& value) {
    ++key_count;
    keys += text(name) + number(type) + value;
    return *this;
  }
  /// `ne` innermost first, as the file has it. `type` is ggml's number.
  GgufBytes& tensor(const std::string& name, const std::vector<int64_t>& ne, uint32_t type, uint64_t offset) {
    ++tensor_count;
    tensors += text(name) + number<uint32_t>(ne.size());
    for (const int64_t size : ne) tensors += number(size);
    tensors += number(type) + number(offset);
    return *this;
  }
  std::string bytes() const {
    std::string result = "GGUF" + number(version) + number(tensor_count) + number(key_count) + keys + tensors;
    if (!data.empty()) result.resize((result.size() + alignment - 1) / alignment * alignment, '\0');
    return result + data;
  }
};

inline void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace kandinsky::test
