#include "core/gguf_writer.h"

#include <set>

#include "core/error.h"
#include "core/ggml_type.h"
#include "core/output_file.h"
#include "gguf.h"

namespace kandinsky {

namespace {

constexpr uint64_t alignment = GGUF_DEFAULT_ALIGNMENT;

uint64_t aligned(uint64_t size) {
  return (size + alignment - 1) / alignment * alignment;
}

/// The header's bytes. Written without ggml's gguf_* functions, which abort the process on input they do not like.
class Header {
 public:
  template <typename T>
  void number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(const std::string& value) {
    number<uint64_t>(value.size());
    bytes_ += value;
  }
  void entry(const std::string& key, const Value& value);
  const std::string& bytes() const { return bytes_; }

 private:
  void type(gguf_type value) { number<uint32_t>(value); }
  void item(bool value) { number<uint8_t>(value); }
  void item(int64_t value) { number(value); }
  void item(double value) { number(value); }
  void item(const std::string& value) { text(value); }

  static constexpr gguf_type type_of(bool) { return GGUF_TYPE_BOOL; }
  static constexpr gguf_type type_of(int64_t) { return GGUF_TYPE_INT64; }
  static constexpr gguf_type type_of(double) { return GGUF_TYPE_FLOAT64; }
  static gguf_type type_of(const std::string&) { return GGUF_TYPE_STRING; }

  template <typename T>
  void value(const T& scalar) {
    type(type_of(scalar));
    item(scalar);
  }
  template <typename T>
  void value(const std::vector<T>& list) {
    type(GGUF_TYPE_ARRAY);
    type(type_of(T()));
    number<uint64_t>(list.size());
    for (size_t i = 0; i < list.size(); ++i) item(static_cast<const T&>(list[i]));
  }

  void value(const Flags& list) { value<bool>(static_cast<const std::vector<bool>&>(list)); }

  std::string bytes_;
};

void Header::entry(const std::string& key, const Value& entry) {
  text(key);
  const int64_t* integer = std::get_if<int64_t>(&entry);
  // Other programs ask for GGUF's own general.* integers as uint32.
  if (integer && key.rfind("general.", 0) == 0 && *integer >= 0 && *integer <= UINT32_MAX) {
    type(GGUF_TYPE_UINT32);
    number(static_cast<uint32_t>(*integer));
  } else {
    std::visit([this](const auto& item) { value(item); }, entry);
  }
}

void check_name(const std::string& name, size_t max_length, const char* what) {
  if (name.empty() || name.size() > max_length || name.find('\0') != std::string::npos)
    fail(ErrorCode::invalid_argument, "Expected 1 to {} bytes for {} but received {}: \"{}\"", max_length, what, name.size(),
         name.substr(0, 200));
}

void check_all(const Metadata& metadata, const std::vector<TensorSource>& sources) {
  for (const auto& [key, value] : metadata) check_name(key, 65535, "a metadata key");
  std::set<std::string> names;
  for (const TensorSource& source : sources) {
    check_name(source.name, GGML_MAX_NAME - 1, "a tensor name");
    if (!names.insert(source.name).second)
      fail(ErrorCode::invalid_argument, "The tensor name \"{}\" appears twice", source.name);
    check_source(source);
  }
}

std::string header_bytes(const Metadata& metadata, const std::vector<TensorSource>& sources) {
  Metadata entries = metadata;
  entries["general.alignment"] = static_cast<int64_t>(alignment);
  Header header;
  header.number<uint32_t>(0x46554747);  // "GGUF"
  header.number<uint32_t>(3);
  header.number<uint64_t>(sources.size());
  header.number<uint64_t>(entries.size());
  for (const auto& [key, value] : entries) header.entry(key, value);
  uint64_t offset = 0;
  for (const TensorSource& source : sources) {
    std::vector<int64_t> shape = target_shape(source);
    if (shape.empty()) shape = {1};  // the format has no scalars
    header.text(source.name);
    header.number(static_cast<uint32_t>(shape.size()));
    for (size_t i = shape.size(); i-- > 0;) header.number(shape[i]);
    header.number(static_cast<uint32_t>(to_ggml_type(source.target)));
    header.number(offset);
    offset += aligned(target_bytes(source));
  }
  return header.bytes();
}

}  // namespace

void write_gguf(const std::string& path, const Metadata& metadata, const std::vector<TensorSource>& sources,
                int threads, const std::atomic<bool>* cancel,
                const std::function<void(uint64_t done, uint64_t total)>& progress) {
  check_all(metadata, sources);
  uint64_t total = 0, done = 0;
  for (const TensorSource& source : sources) total += target_bytes(source);

  SourceFiles files;
  OutputFile file(path);
  const auto pad = [&] {
    const char zeros[alignment] = {};
    file.write(zeros, aligned(file.size()) - file.size());
  };
  const std::string header = header_bytes(metadata, sources);
  file.write(header.data(), header.size());
  pad();
  for (const TensorSource& source : sources) {
    read_tensor(files, source, threads, cancel, [&](uint64_t, const void* data, size_t size) {
      file.write(data, size);
      done += size;
      if (progress) progress(done, total);
    });
    pad();
  }
  if (cancel && *cancel) fail_cancelled();
  file.commit();
}

}  // namespace kandinsky
