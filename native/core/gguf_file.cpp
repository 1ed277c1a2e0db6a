#include "core/gguf_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "core/ggml_type.h"

namespace kandinsky {

namespace {

// Larger than any header this package writes (its tokenizers take a few MB), small enough to hold in memory.
constexpr uint64_t max_header_bytes = 256u << 20;
constexpr uint64_t max_safe_integer = (uint64_t{1} << 53) - 1;
constexpr size_t max_tensor_name = GGML_MAX_NAME - 1;
constexpr size_t max_key = 65535;

enum ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64, value_type_count };
constexpr std::array<uint64_t, value_type_count> value_bytes = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};

bool starts_with(const std::string& text, const char* prefix) {
  return text.compare(0, std::strlen(prefix), prefix) == 0;
}

bool is_utf8(const std::string& text) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t at) { return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u; };
    const unsigned first = byte(i), second = byte(i + 1);
    size_t length = 1;
    if (first >= 0x80) {
      length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
      if (first < 0xc2 || first > 0xf4) return false;
      // Overlong forms, surrogates, beyond U+10FFFF.
      if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) || (first == 0xf0 && second < 0x90) ||
          (first == 0xf4 && second > 0x8f))
        return false;
      for (size_t k = 1; k < length; ++k) {
        if ((byte(i + k) & 0xc0) != 0x80) return false;
      }
    }
    i += length;
  }
  return true;
}

/// What a file that is not GGUF seems to be, from its first bytes.
const char* guess_kind(const std::string& head, uint64_t file_size) {
  uint64_t length = 0;
  if (head.size() >= 9) std::memcpy(&length, head.data(), 8);
  if (head.size() >= 9 && head[8] == '{' && length <= file_size - 8) return "a safetensors file; convert it first";
  if (starts_with(head, "PK\x03\x04")) return "a zip archive, perhaps a PyTorch checkpoint; convert it first";
  if (starts_with(head, "\x80\x02") || starts_with(head, "\x80\x04")) return "a Python pickle";
  if (starts_with(head, "version https://git-lfs")) return "a Git LFS pointer; the file itself was not downloaded";
  if (starts_with(head, "<!") || starts_with(head, "<html") || starts_with(head, "<HTML"))
    return "a web page; perhaps the download needed a login";
  if (starts_with(head, "FUGG")) return "a big-endian GGUF file, which is not supported";
  if (starts_with(head, "\x1f\x8b")) return "a gzip archive";
  if (starts_with(head, "{")) return "a JSON file";
  return nullptr;
}

class Reader {
 public:
  explicit Reader(const std::string& path) : file_(path), limit_(std::min(file_.size(), max_header_bytes)) {}

  GgufContent read();

 private:
  template <typename... Arguments>
  [[noreturn]] void bad(std::string_view format, const Arguments&... arguments) const {
    const std::string message = format_text(format, {text_of(arguments)...});
    fail(ErrorCode::bad_file, "{}: {} (at byte {})", file_.path(), message, position_);
  }
  void require(uint64_t bytes, const char* what);
  void take(void* destination, uint64_t bytes, const char* what);
  template <typename T>
  T take(const char* what) {
    T value;
    take(&value, sizeof value, what);
    return value;
  }
  std::string take_string(size_t max_length, const char* what);
  std::string take_name(size_t max_length, const char* what);
  uint64_t take_count(uint64_t bytes_each, const char* what);

  void check_magic();
  int64_t take_integer(uint32_t type, const std::string& key);
  Value take_scalar(uint32_t type, const std::string& key);
  Value take_array(const std::string& key);
  uint64_t take_alignment(uint32_t type);
  GgufTensor take_tensor();
  void place_tensors(std::vector<GgufTensor>& tensors, uint64_t alignment);

  File file_;
  uint64_t limit_;         // no header reaches beyond it
  uint64_t position_ = 0;  // of the next byte to take
  std::string buffer_;     // file bytes from buffer_start_
  uint64_t buffer_start_ = 0;
};

void Reader::require(uint64_t bytes, const char* what) {
  if (bytes <= limit_ - position_) return;
  if (limit_ < file_.size()) bad("the header is larger than {} MB", max_header_bytes >> 20);
  bad("the file ends inside {}", what);
}

void Reader::take(void* destination, uint64_t bytes, const char* what) {
  require(bytes, what);
  if (position_ < buffer_start_ || position_ + bytes > buffer_start_ + buffer_.size()) {
    buffer_.resize(std::min(limit_ - position_, std::max<uint64_t>(bytes, 64 << 10)));
    buffer_start_ = position_;
    file_.read(position_, buffer_.data(), buffer_.size());
  }
  std::memcpy(destination, buffer_.data() + (position_ - buffer_start_), bytes);
  position_ += bytes;
}

std::string Reader::take_string(size_t max_length, const char* what) {
  const auto length = take<uint64_t>(what);
  if (length > max_length)
    bad("{} is {} bytes long, expected at most {}", what, length, max_length);
  require(length, what);
  std::string text(length, '\0');
  take(text.data(), length, what);
  if (!is_utf8(text)) bad("{} is not valid UTF-8", what);
  return text;
}

/// A key or tensor name: never empty, and without NUL, where C strings would end.
std::string Reader::take_name(size_t max_length, const char* what) {
  std::string name = take_string(max_length, what);
  if (name.empty() || name.find('\0') != std::string::npos) bad("{} is empty or contains a NUL character", what);
  return name;
}

/// A number of things that take at least `bytes_each` bytes in the file, so that it cannot promise more than is there.
uint64_t Reader::take_count(uint64_t bytes_each, const char* what) {
  const auto count = take<uint64_t>(what);
  if (count > (limit_ - position_) / bytes_each)
    bad("{} {} cannot fit into the {} bytes that are left", count, what,
        (limit_ - position_));
  return count;
}

int64_t Reader::take_integer(uint32_t type, const std::string& key) {
  switch (type) {
    case u8: return take<uint8_t>("a value");
    case i8: return take<int8_t>("a value");
    case u16: return take<uint16_t>("a value");
    case i16: return take<int16_t>("a value");
    case u32: return take<uint32_t>("a value");
    case i32: return take<int32_t>("a value");
    default: break;
  }
  const auto bits = take<uint64_t>("a value");
  const bool negative = type == i64 && static_cast<int64_t>(bits) < 0;
  if ((negative ? 0 - bits : bits) > max_safe_integer)
    bad("the value of \"{}\" is beyond 2^53, where JavaScript's numbers lose digits", key);
  return static_cast<int64_t>(bits);
}

Value Reader::take_scalar(uint32_t type, const std::string& key) {
  if (type == f32) return static_cast<double>(take<float>("a value"));
  if (type == f64) return take<double>("a value");
  if (type == string) return take_string(max_header_bytes, "a string value");
  if (type != boolean) return take_integer(type, key);
  const auto byte = take<uint8_t>("a value");
  if (byte > 1) bad("the boolean \"{}\" is {}, expected 0 or 1", key, int{byte});
  return byte == 1;
}

template <typename T, typename Take>
Value take_items(uint64_t count, Take take) {
  std::vector<T> items;
  for (uint64_t i = 0; i < count; ++i) items.push_back(std::get<T>(take()));
  return items;
}

Value Reader::take_array(const std::string& key) {
  const auto type = take<uint32_t>("an array's type");
  if (type >= value_type_count) bad("the array \"{}\" has the unknown type {}", key, type);
  if (type == array) bad("\"{}\" is an array of arrays, which is not supported", key);
  const uint64_t count = take_count(value_bytes[type], "array items");
  const auto take_one = [&] { return take_scalar(type, key); };
  switch (type) {
    case f32:
    case f64: return take_items<double>(count, take_one);
    case boolean: return take_items<bool>(count, take_one);
    case string: return take_items<std::string>(count, take_one);
    default: return take_items<int64_t>(count, take_one);
  }
}

uint64_t Reader::take_alignment(uint32_t type) {
  if (type != u32) bad("general.alignment has value type {}, expected {} (uint32)", type, int{u32});
  const auto alignment = take<uint32_t>("general.alignment");
  if (alignment == 0 || (alignment & (alignment - 1)) != 0)
    bad("general.alignment is {}, expected a power of two", alignment);
  return alignment;
}

/// Its offset is still relative to the data that follows the header.
GgufTensor Reader::take_tensor() {
  GgufTensor tensor;
  tensor.name = take_name(max_tensor_name, "a tensor name");
  const auto dimensions = take<uint32_t>("a tensor's dimensions");
  if (dimensions < 1 || dimensions > GGML_MAX_DIMS)
    bad("tensor \"{}\" has {} dimensions, expected 1 to {}", tensor.name, dimensions, GGML_MAX_DIMS);
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = take<int64_t>("a tensor's dimensions");
    if (size < 1) bad("tensor \"{}\" has a dimension of size {}", tensor.name, size);
    tensor.shape.insert(tensor.shape.begin(), size);
  }
  const auto type = take<uint32_t>("a tensor's type");
  const auto known = from_ggml_type(type);
  if (!known) {
    // ggml_type_name asserts that the number is one of its own.
    bad("tensor \"{}\" has type {} ({}), which is not supported", tensor.name, type,
        type < GGML_TYPE_COUNT && ggml_type_name(static_cast<ggml_type>(type))
            ? ggml_type_name(static_cast<ggml_type>(type))
            : "unknown");
  }
  tensor.type = *known;
  try {
    tensor.bytes = tensor_bytes(tensor.type, tensor.shape);
  } catch (const Error& error) {
    bad("tensor \"{}\": {}", tensor.name, error.what());
  }
  tensor.offset = take<uint64_t>("a tensor's offset");
  return tensor;
}

/// Makes the offsets absolute and checks that the tensors lie in the file, each in a place of its own.
void Reader::place_tensors(std::vector<GgufTensor>& tensors, uint64_t alignment) {
  const uint64_t start = (position_ + alignment - 1) / alignment * alignment;
  for (GgufTensor& tensor : tensors) {
    if (tensor.offset % alignment != 0)
      bad("tensor \"{}\" has offset {}, which is not a multiple of the alignment {}", tensor.name,
          tensor.offset, alignment);
    const uint64_t available = start < file_.size() ? file_.size() - start : 0;
    if (tensor.offset > available || tensor.bytes > available - tensor.offset)
      bad("the data of tensor \"{}\" ends at byte {} but the file has {}: it is incomplete", tensor.name,
          start + tensor.offset + tensor.bytes, file_.size());
    tensor.offset += start;
  }
  std::vector<const GgufTensor*> sorted;
  for (const GgufTensor& tensor : tensors) sorted.push_back(&tensor);
  std::sort(sorted.begin(), sorted.end(), [](auto a, auto b) { return a->offset < b->offset; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i - 1]->offset + sorted[i - 1]->bytes > sorted[i]->offset)
      bad("tensors \"{}\" and \"{}\" overlap", sorted[i - 1]->name, sorted[i]->name);
  }
}

void Reader::check_magic() {
  std::string head(std::min<uint64_t>(file_.size(), 64), '\0');
  if (head.empty()) fail(ErrorCode::bad_file, "{} is empty", file_.path());
  file_.read(0, head.data(), head.size());
  if (starts_with(head, "GGUF")) return;
  const char* kind = guess_kind(head, file_.size());
  fail(ErrorCode::bad_file, "{} is not a GGUF file{}{}", file_.path(), kind ? "; it seems to be " : "", kind ? kind : "");
}

GgufContent Reader::read() {
  check_magic();
  position_ = 4;
  const auto version = take<uint32_t>("the version");
  if (version < 2 || version > 3) bad("GGUF version {} is not supported, expected 2 or 3", version);
  const uint64_t tensor_count = take_count(8 + 1 + 4 + 8 + 4 + 8, "tensors");
  const uint64_t key_count = take_count(8 + 1 + 4 + 1, "metadata entries");

  GgufContent content;
  uint64_t alignment = 32;
  for (uint64_t i = 0; i < key_count; ++i) {
    const std::string key = take_name(max_key, "a metadata key");
    const auto type = take<uint32_t>("a value's type");
    if (type >= value_type_count) bad("\"{}\" has the unknown value type {}", key, type);
    if (content.metadata.count(key)) bad("the metadata key \"{}\" appears twice", key);
    if (key == "general.alignment") {
      alignment = take_alignment(type);
      content.metadata[key] = static_cast<int64_t>(alignment);
    } else {
      content.metadata[key] = type == array ? take_array(key) : take_scalar(type, key);
    }
  }
  std::set<std::string> names;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    content.tensors.push_back(take_tensor());
    if (!names.insert(content.tensors.back().name).second)
      bad("the tensor name \"{}\" appears twice", content.tensors.back().name);
  }
  place_tensors(content.tensors, alignment);
  content.stamp = file_.stamp();
  return content;
}

}  // namespace

GgufContent read_gguf(const std::string& path) {
  return Reader(path).read();
}

}  // namespace kandinsky
