#include "core/tensor_source.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>

#include "core/adapter.h"
#include "core/error.h"
#include "core/file.h"
#include "core/ggml_type.h"
#include "core/parallel.h"

namespace kandinsky {

namespace {

// Elements that are read and handed to the sink at once: 32 MB as float64 plus 16 MB as float32.
constexpr int64_t piece_elements = 4 << 20;
// Elements that one thread converts at once, in buffers that stay in its cache.
constexpr int64_t chunk_elements = 16 << 10;

// Far below what any quantized block can hold beside 0 (the smallest float16 is 6e-8), and far above where the reciprocal
// of a block's scale overflows, which ggml's quantizers do not check.
constexpr float negligible = 1e-20f;

// The largest float16. Block scales are float16 too, so that larger weights would become infinite.
constexpr float max_half = 65504.0f;

bool is_weight_type(Type type) {
  return type <= Type::q4_0;
}

/// Whether reading moves elements: a kernel of 1x1 already lies as its matrix.
bool needs_turning(const TensorSource& source) {
  return source.shape.size() == 4 && (source.transposed || source.shape[2] * source.shape[3] > 1);
}

/// Finite values and NaN, no infinity (OCP 8-bit floating point, revision 1.0, "E4M3"): torch's float8_e4m3fn.
float float_of_e4m3(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  const float magnitude = (bits & 0x7f) == 0x7f ? std::numeric_limits<float>::quiet_NaN()
                          : exponent == 0       ? std::ldexp(static_cast<float>(mantissa), -9)
                                                : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return bits & 0x80 ? -magnitude : magnitude;
}

template <typename T>
void widen(const std::byte* stored, float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    T item;
    std::memcpy(&item, stored + i * sizeof(T), sizeof(T));
    values[i] = static_cast<float>(item);
  }
}

void to_floats(Type type, const std::byte* stored, float* values, int64_t count) {
  switch (type) {
    case Type::f32: std::memcpy(values, stored, count * sizeof(float)); return;
    case Type::f64: widen<double>(stored, values, count); return;
    case Type::i64: widen<int64_t>(stored, values, count); return;
    case Type::i32: widen<int32_t>(stored, values, count); return;
    case Type::i16: widen<int16_t>(stored, values, count); return;
    case Type::i8: widen<int8_t>(stored, values, count); return;
    case Type::u8:
    case Type::boolean: widen<uint8_t>(stored, values, count); return;
    case Type::f8_e4m3:
      for (int64_t i = 0; i < count; ++i) values[i] = float_of_e4m3(std::to_integer<uint8_t>(stored[i]));
      return;
    case Type::f8_e5m2:  // the upper byte of a float16
      for (int64_t i = 0; i < count; ++i)
        values[i] = ggml_fp16_to_fp32(static_cast<ggml_fp16_t>(std::to_integer<unsigned>(stored[i]) << 8));
      return;
    default: ggml_get_type_traits(to_ggml_type(type))->to_float(stored, values, count);
  }
}

/// Changes the values that a quantized type cannot hold.
void from_floats(const TensorSource& source, float* values, std::byte* target, int64_t count) {
  if (source.target == Type::f32) {
    std::memcpy(target, values, count * sizeof(float));
    return;
  }
  if (source.target != Type::bf16) {
    // Written so that NaN is found too.
    const float* wrong = std::find_if_not(values, values + count, [](float x) { return std::fabs(x) <= max_half; });
    if (wrong != values + count)
      fail(ErrorCode::bad_file, "{}: tensor {} contains {}, which {} cannot hold", source.path, source.name, *wrong, type_name(source.target));
  }
  if (is_quantized(source.target))
    std::replace_if(values, values + count, [](float x) { return std::fabs(x) < negligible; }, 0.0f);
  // As one row: blocks are independent, so that results do not depend on how a tensor is cut into pieces.
  ggml_quantize_chunk(to_ggml_type(source.target), values, target, 0, 1, count, nullptr);
}

/// [in, kh*kw] to [kh*kw, in].
void turn_kernel(const float* values, float* turned, int64_t channels, int64_t area) {
  for (int64_t channel = 0; channel < channels; ++channel) {
    for (int64_t at = 0; at < area; ++at) turned[at * channels + channel] = values[channel * area + at];
  }
}

/// Element `index` of the sequence that starts at `seed`: the sum of four uniform 16-bit numbers, scaled to standard
/// deviation 1. Close to normal, within 3.5 deviations, exact on every machine, and it needs no state.
float random_value(uint64_t seed, uint64_t index) {
  // SplitMix64, http://xoshiro.di.unimi.it/splitmix64.c (public domain)
  const auto mix = [](uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  };
  const uint64_t bits = mix(mix(seed) + (index + 1) * 0x9e3779b97f4a7c15);
  const int64_t sum = (bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48);
  constexpr float deviation = 37837.2273f;  // sqrt(4 * (2^32 - 1) / 12)
  return static_cast<float>(sum - 2 * 65535) / deviation;
}

/// Converts any run of a tensor's units: the smallest parts that can be converted on their own.
class Conversion {
 public:
  /// `adapters`: null, or what is added to the stored values.
  Conversion(const TensorSource& source, const StackedAdapters* adapters)
      : source_(source), adapters_(adapters), turns_(needs_turning(source)) {
    count_ = element_count(source.shape);
    unit_ = turns_ ? (source.transposed ? count_ : count_ / source.shape[0]) : std::max(block_size(source.type), block_size(source.target));
  }

  int64_t units() const { return count_ / unit_; }
  int64_t unit_elements() const { return unit_; }
  uint64_t stored_bytes(int64_t units) const { return bytes(source_.type, units); }
  uint64_t target_bytes(int64_t units) const { return bytes(source_.target, units); }

  /// `stored` holds the units from `first_unit` on; null for random values.
  void convert(const std::byte* stored, int64_t first_unit, int64_t units, std::byte* target) const {
    const int64_t step = std::max<int64_t>(1, chunk_elements / unit_);
    std::vector<float> values(std::min(step, units) * unit_), turned(turns_ ? values.size() : 0);
    for (int64_t done = 0; done < units; done += step) {
      const int64_t now = std::min(step, units - done);
      if (stored) {
        to_floats(source_.type, stored + stored_bytes(done), values.data(), now * unit_);
      } else {
        for (int64_t i = 0; i < now * unit_; ++i)
          values[i] = source_.random.mean +
                      source_.random.scale * random_value(source_.random.seed, (first_unit + done) * unit_ + i);
      }
      if (adapters_) add_adapters(*adapters_, (first_unit + done) * unit_, values.data(), now * unit_);
      for (int64_t i = 0; turns_ && i < now; ++i) turn(&values[i * unit_], &turned[i * unit_]);
      from_floats(source_, turns_ ? turned.data() : values.data(), target + target_bytes(done), now * unit_);
    }
  }

 private:
  void turn(const float* values, float* turned) const {
    const auto& shape = source_.shape;
    const int64_t area = shape[2] * shape[3];
    if (!source_.transposed) return turn_kernel(values, turned, shape[1], area);
    for (int64_t in = 0; in < shape[0]; ++in) {
      for (int64_t out = 0; out < shape[1]; ++out) {
        for (int64_t at = 0; at < area; ++at) turned[(at * shape[1] + out) * shape[0] + in] = *values++;
      }
    }
  }
  uint64_t bytes(Type type, int64_t units) const { return units * unit_ / block_size(type) * block_bytes(type); }

  const TensorSource& source_;
  const StackedAdapters* adapters_;
  bool turns_;
  int64_t count_ = 0;
  int64_t unit_ = 0;
};

/// Bytes from a strided tensor's first element to the end of its last.
uint64_t strided_bytes(const TensorSource& source) {
  if (source.stride.size() != source.shape.size() || block_size(source.type) != 1)
    fail(ErrorCode::bad_file, "strides {} were given for type {} and shape {}", shape_text(source.stride),
         type_name(source.type), shape_text(source.shape));
  // The range of a tensor whose last element is the sum of what each dimension reaches.
  int64_t last = 0;
  for (size_t i = 0; i < source.shape.size(); ++i) {
    const int64_t reach = element_count({source.shape[i] - 1, source.stride[i]});
    if (reach > (int64_t{1} << 48) - last)
      fail(ErrorCode::bad_file, "strides {} are too large", shape_text(source.stride));
    last += reach;
  }
  return static_cast<uint64_t>(last + 1) * block_bytes(source.type);
}

/// The elements from `first` on, in row-major order, of a strided tensor that `all` holds.
void gather(const TensorSource& source, const std::byte* all, int64_t first, int64_t count, std::byte* out) {
  const size_t size = block_bytes(source.type);
  const int64_t row = source.shape.back(), step = source.stride.back();
  for (int64_t done = 0; done < count;) {
    const int64_t at = first + done, column = at % row, now = std::min(row - column, count - done);
    int64_t element = column * step, rest = at / row;
    for (size_t i = source.shape.size() - 1; i-- > 0; rest /= source.shape[i])
      element += rest % source.shape[i] * source.stride[i];
    for (int64_t i = 0; i < now; ++i, ++done) std::memcpy(out + done * size, all + (element + i * step) * size, size);
  }
}

void check_cancel(const std::atomic<bool>* cancel) {
  if (cancel && *cancel) fail_cancelled();
}

void copy_stored(SourceFiles& files, const TensorSource& source, const std::atomic<bool>* cancel,
                 const PieceSink& sink) {
  std::vector<std::byte> piece(std::min<uint64_t>(source.bytes, 16 << 20));
  for (uint64_t done = 0; done < source.bytes;) {
    check_cancel(cancel);
    const size_t size = std::min<uint64_t>(piece.size(), source.bytes - done);
    files.read(source.path, source.offset + done, piece.data(), size);
    sink(done, piece.data(), size);
    done += size;
  }
}

}  // namespace

const char* precision_name(Precision precision) {
  constexpr const char* names[] = {"quantizable", "q8_0", "half", "exact"};
  return names[static_cast<size_t>(precision)];
}

std::vector<int64_t> target_shape(const TensorSource& source) {
  return matrix_shape(source.shape, source.transposed);
}

uint64_t target_bytes(const TensorSource& source) {
  return tensor_bytes(source.target, target_shape(source));
}

bool is_stored_as_target(const TensorSource& source) {
  return !source.path.empty() && source.stride.empty() && source.adapters.empty() && source.type == source.target &&
         !needs_turning(source);
}

void check_source(const TensorSource& source) {
  const char* name = source.name.c_str();
  const std::string shape = shape_text(source.shape);
  if (source.shape.size() > GGML_MAX_DIMS ||
      std::any_of(source.shape.begin(), source.shape.end(), [](int64_t size) { return size < 1; }))
    fail(ErrorCode::bad_file, "Tensor {} has shape {}, expected at most {} dimensions of size 1 or more", name, shape, GGML_MAX_DIMS);
  try {
    const uint64_t expected = source.stride.empty() ? tensor_bytes(source.type, source.shape) : strided_bytes(source);
    if (!source.path.empty() && source.bytes != expected)
      fail(ErrorCode::bad_file, "{} bytes were given for type {} and shape {}", source.bytes, type_name(source.type), shape);
    // What the intermediate sums below may reach; no real tensor comes near.
    if (element_count(source.shape) > (int64_t{1} << 48) || source.offset > std::numeric_limits<uint64_t>::max() / 2)
      fail(ErrorCode::bad_file, "shape {} or its offset is too large", shape);
  } catch (const Error& error) {
    fail(error.code, "{}: tensor {}: {}", source.path, name, error.what());
  }
  if (!is_weight_type(source.target))
    fail(ErrorCode::invalid_argument, "Tensor {} cannot be stored as {}", name, type_name(source.target));
  if (target_shape(source).empty() ? is_quantized(source.target)
                                   : target_shape(source).back() % block_size(source.target) != 0)
    fail(ErrorCode::invalid_argument, "Tensor {} of shape {} cannot be stored as {}: its rows are no multiple of {}", name, shape, type_name(source.target), block_size(source.target));
  if (source.path.empty() && !(std::isfinite(source.random.mean) && std::isfinite(source.random.scale)))
    fail(ErrorCode::invalid_argument, "Tensor {} has neither a file nor finite random values", name);
}

struct SourceFiles::Impl {
  std::shared_ptr<const File> open(const std::string& path) {
    const std::lock_guard lock(mutex);
    std::shared_ptr<const File>& file = files[path];
    if (!file) file = std::make_shared<File>(path);
    return file;
  }

  std::mutex mutex;
  std::map<std::string, std::shared_ptr<const File>> files;
};

SourceFiles::SourceFiles() : impl_(std::make_unique<Impl>()) {}
SourceFiles::~SourceFiles() = default;

void SourceFiles::read(const std::string& path, uint64_t offset, void* destination, size_t size) {
  impl_->open(path)->read(offset, destination, size);
}

void SourceFiles::check(const TensorSource& source) {
  if (source.path.empty()) return;
  const std::shared_ptr<const File> file = impl_->open(source.path);
  // Before any memory is taken for what a file promises.
  if (source.offset > file->size() || source.bytes > file->size() - source.offset)
    fail(ErrorCode::bad_file, "{} is too short: expected {} bytes of {} at position {} but it has {} in all", source.path,
         source.bytes, source.name, source.offset, file->size());
  if (!source.stamp.empty() && file->stamp() != source.stamp)
    fail(ErrorCode::bad_file, "{} changed since its header was read; load it again", source.path);
}

std::shared_ptr<const MappedFile> SourceFiles::map(const std::string& path) {
  return std::make_shared<MappedFile>(impl_->open(path));
}

void read_tensor(SourceFiles& files, const TensorSource& source, int threads, const std::atomic<bool>* cancel,
                 const PieceSink& sink) {
  check_source(source);
  files.check(source);
  if (is_stored_as_target(source)) return copy_stored(files, source, cancel, sink);
  StackedAdapters adapters;
  if (!source.adapters.empty()) {
    for (const Adapter& adapter : source.adapters) check_adapter(adapter, source.name, source.shape);
    adapters = read_adapters(files, source.adapters, source.shape.size() == 2, 0, threads, cancel);
  }
  const Conversion conversion(source, source.adapters.empty() ? nullptr : &adapters);
  const int64_t step = std::clamp<int64_t>(piece_elements / conversion.unit_elements(), 1, conversion.units());
  std::vector<std::byte> stored(source.path.empty() ? 0 : conversion.stored_bytes(step));
  std::vector<std::byte> target(conversion.target_bytes(step));
  std::vector<std::byte> strided(source.stride.empty() ? 0 : source.bytes);
  if (!strided.empty()) files.read(source.path, source.offset, strided.data(), strided.size());
  for (int64_t first = 0; first < conversion.units(); first += step) {
    check_cancel(cancel);
    const int64_t units = std::min(step, conversion.units() - first);
    if (!strided.empty()) {
      gather(source, strided.data(), first * conversion.unit_elements(), units * conversion.unit_elements(),
             stored.data());
    } else if (!source.path.empty()) {
      files.read(source.path, source.offset + conversion.stored_bytes(first), stored.data(),
                 conversion.stored_bytes(units));
    }
    const int64_t smallest_share = std::max<int64_t>(1, chunk_elements / conversion.unit_elements());
    parallel_ranges(units, smallest_share, threads, [&](int64_t begin, int64_t end) {
      conversion.convert(source.path.empty() ? nullptr : stored.data() + conversion.stored_bytes(begin), first + begin,
                         end - begin, target.data() + conversion.target_bytes(begin));
    });
    sink(conversion.target_bytes(first), target.data(), conversion.target_bytes(units));
  }
}

}  // namespace kandinsky
