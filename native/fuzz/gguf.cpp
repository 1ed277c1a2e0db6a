// A GGUF file of any bytes: what read_gguf() accepts lies inside the file, can be read, and is the same once written and
// read again.
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/gguf_file.h"
#include "core/gguf_writer.h"
#include "core/tensor_source.h"
#include "fuzz/fuzz.h"

namespace kandinsky::fuzz {

namespace {

std::vector<TensorSource> sources_of(const GgufContent& content, const std::string& path) {
  std::vector<TensorSource> sources;
  for (const GgufTensor& tensor : content.tensors) {
    TensorSource source;
    source.name = tensor.name;
    source.path = path;
    source.offset = tensor.offset;
    source.bytes = tensor.bytes;
    source.type = tensor.type;
    source.shape = tensor.shape;
    // Types that a GGUF may store and a weight may not have are read as float32.
    source.target = tensor.type <= Type::q4_0 ? tensor.type : Type::f32;
    source.stamp = content.stamp;
    sources.push_back(source);
  }
  return sources;
}

std::string written(const GgufContent& content, const std::string& source) {
  static const std::string path = [] {
    const std::string folder = std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp";
    return folder + "/kandinsky-fuzz-" + std::to_string(::getpid()) + ".gguf";
  }();
  write_gguf(path, content.metadata, sources_of(content, source), 1, nullptr, nullptr);
  std::ifstream file(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), {}};
  file.close();
  std::filesystem::remove(path);
  return bytes;
}

}  // namespace

}  // namespace kandinsky::fuzz

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kandinsky;
  static fuzz::MemoryFile file, again;
  file.set(data, size);
  GgufContent content;
  if (!fuzz::is_accepted({ErrorCode::bad_file}, [&] { content = read_gguf(file.path()); })) return 0;
  for (const GgufTensor& tensor : content.tensors)
    EXPECT(tensor.offset <= size && tensor.bytes <= size - tensor.offset && !tensor.shape.empty());

  // Turning a kernel into a matrix makes other blocks, which cannot hold every value.
  std::string first;
  const auto refusals = {ErrorCode::bad_file, ErrorCode::invalid_argument};
  if (!fuzz::is_accepted(refusals, [&] { first = fuzz::written(content, file.path()); })) return 0;
  again.set(reinterpret_cast<const uint8_t*>(first.data()), first.size());
  GgufContent copy = read_gguf(again.path());
  EXPECT(copy.tensors.size() == content.tensors.size());
  EXPECT(fuzz::written(copy, again.path()) == first);
  return 0;
}
