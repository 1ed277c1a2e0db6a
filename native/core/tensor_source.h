// Where the bytes of one weight come from, and how they become the wanted type and layout.
//
// Every file format ends here: our GGUF, safetensors and PyTorch zip files are all lists of (file, offset, type,
// shape). Loading a network and writing a GGUF file read tensors through the same function.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/types.h"

namespace kandinsky {

struct Adapter;

struct TensorSource {
  std::string name;            // the reference's own name, without the component prefix
  std::string path;            // empty: values are generated from `random`
  uint64_t offset = 0;         // absolute, in bytes
  uint64_t bytes = 0;
  Type type = Type::f32;       // as stored in the file
  std::vector<int64_t> shape;  // as stored, outermost dimension first; a 4-D convolution kernel is not yet a matrix
  Type target = Type::f32;     // wanted on the device or in the output; falls to what the row length allows is
                               // decided by the caller, an impossible target is an error
  // Roughly normal, standard deviation `scale`; the same on every machine, see tensor_source.cpp.
  struct Random { uint64_t seed = 0; float scale = 0; float mean = 0; } random;
  bool transposed = false;  // a 4-D kernel is that of a transposed convolution, [in, out, kh, kw]
  // Elements between neighbours of each dimension, of a plain type; empty: row-major without gaps. `bytes` of others reach
  // from the first element to the end of the last.
  std::vector<int64_t> stride;
  std::string stamp;  // of the file (core/file.h) when its header was read; empty: not checked
  std::vector<Adapter> adapters;  // merged into the values as they are read; core/adapter.h
};

/// What is added to a matrix: scale * up x down.
struct Adapter {
  TensorSource down;  // [rank, in], of a convolution [rank, in, kh, kw] or [rank, in] where it is 1x1
  TensorSource up;    // [out, rank] or [out, rank, 1, 1]
  float scale = 1;
};

/// What a weight's values need at least, whatever type is asked for: errors of quantized matrices average out over a row
/// of hundreds of values; errors of a gain, an offset, or of what reaches every layer do not.
enum class Precision {
  quantizable,  // any type
  q8_0,
  half,   // float16
  exact,  // float32
};

/// "quantizable", "q8_0", "half", "exact".
const char* precision_name(Precision precision);

/// One weight that a network needs, in the reference's name and shape.
struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
  Precision precision = Precision::quantizable;
  bool transposed = false;  // see TensorSource
};

/// Shape and type of the tensor once read: matrix_shape(shape, transposed) and target.
std::vector<int64_t> target_shape(const TensorSource& source);
uint64_t target_bytes(const TensorSource& source);

/// True if the stored bytes are already the target's bytes (same type, no turning), so they may be mapped.
bool is_stored_as_target(const TensorSource& source);

/// Throws bad_file/invalid_argument unless file range, byte count, shape and target agree. Opens no file.
void check_source(const TensorSource& source);

/// Files opened once and shared by the sources of one load or conversion.
class SourceFiles {
 public:
  SourceFiles();
  ~SourceFiles();
  /// Throws bad_file if the source's file has changed since its header was read, or does not hold all of its bytes.
  void check(const TensorSource& source);
  /// Reads exactly `size` bytes; throws file_not_found or bad_file (short file, changed file).
  void read(const std::string& path, uint64_t offset, void* destination, size_t size);
  std::shared_ptr<const MappedFile> map(const std::string& path);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Called with consecutive pieces of the tensor's target bytes, in order.
using PieceSink = std::function<void(uint64_t offset, const void* data, size_t size)>;

/// Reads, converts, turns and quantizes a tensor piece by piece (whole outermost rows); holds at most about 64 MB, and
/// all stored bytes of a strided one.
/// Checks `cancel` between pieces (throws aborted). Uses `threads` threads to quantize.
void read_tensor(SourceFiles& files, const TensorSource& source, int threads, const std::atomic<bool>* cancel,
                 const PieceSink& sink);

}  // namespace kandinsky
