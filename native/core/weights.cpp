#include "core/weights.h"

#include <algorithm>
#include <tuple>

#include "core/error.h"
#include "core/file.h"
#include "core/ggml_type.h"

namespace kandinsky {

namespace {

// ggml reads vectors with unaligned loads, but its buffers promise this alignment, and kernels may rely on it.
constexpr uint64_t map_alignment = 32;

bool may_be_mapped(const TensorSource& source) {
  return !source.path.empty() && source.offset % map_alignment == 0 && is_stored_as_target(source);
}

}  // namespace

WeightStore::WeightStore(const std::string& component, const std::vector<TensorSource>& sources)
    : component_(component), describing_(false) {
  for (const TensorSource& source : sources) weights_[source.name].source = source;
  // ggml_init would assert that it gets its memory; here a lack of it throws.
  const size_t bytes = (weights_.size() + 1) * ggml_tensor_overhead();
  arena_.reset(new std::byte[bytes]);
  context_.reset(ggml_init({bytes, arena_.get(), true}));
}

WeightStore::WeightStore(const std::string& component, const std::set<std::string>* stored)
    : component_(component), describing_(true), stored_(stored) {}

Weights WeightStore::root() { return {*this, ""}; }

ggml_tensor* WeightStore::ask(const TensorSpec& spec, bool keep_f32) {
  const auto& [name, shape, precision, transposed] = spec;
  if (describing_) {
    specs_.push_back(spec);
    return nullptr;
  }
  const auto found = weights_.find(name);
  if (found == weights_.end()) {
    fail(ErrorCode::bad_file, "{}: {} is missing (expected shape {})", component_, name, shape_text(shape));
  }
  Weight& weight = found->second;
  const std::vector<int64_t> matrix = matrix_shape(shape, transposed);
  if (weight.source.shape != shape && weight.source.shape != matrix) {
    fail(ErrorCode::shape_mismatch, "{}: {}: expected {}, file has {}", component_, name, shape_text(shape),
         shape_text(weight.source.shape));
  }
  if (weight.tensor) fail(ErrorCode::internal, "{}: {} is used twice", component_, name);
  weight.source.transposed = transposed;
  if (keep_f32) weight.source.target = Type::f32;
  check_source(weight.source);

  const std::vector<int64_t> ne(matrix.rbegin(), matrix.rend());
  weight.tensor =
      ggml_new_tensor(context_.get(), to_ggml_type(weight.source.target), static_cast<int>(ne.size()), ne.data());
  ggml_set_name(weight.tensor, name.c_str());
  is_f32_ = is_f32_ && weight.source.target == Type::f32;
  specs_.push_back(spec);
  bytes_ += ggml_nbytes(weight.tensor);
  return weight.tensor;
}

WeightStore::Matrix WeightStore::matrix(const std::string& name) const {
  const auto found = weights_.find(name);
  const auto spec = std::find_if(specs_.begin(), specs_.end(), [&](const TensorSpec& s) { return s.name == name; });
  if (found == weights_.end() || spec == specs_.end() || spec->transposed || matrix_shape(spec->shape, false).size() != 2)
    fail(ErrorCode::invalid_argument, "{}: expected the name of a matrix but received \"{}\"", component_, name);
  return {found->second.tensor, spec->shape};
}

void WeightStore::load(Device& device, const std::atomic<bool>* cancel,
                       const std::function<void(uint64_t, uint64_t)>& progress) {
  SourceFiles files;
  map_files(device, files);
  allocate_rest(device);
  read_rest(device, files, cancel, progress);
}

void WeightStore::pretend(Device& device) {
  uint64_t size = 0;
  for (const auto& [name, weight] : weights_) {
    if (weight.tensor) size += (ggml_nbytes(weight.tensor) + map_alignment - 1) / map_alignment * map_alignment;
  }
  std::byte* base = reinterpret_cast<std::byte*>(uintptr_t{1} << 20);  // anything but null, which would mean "allocate"
  ggml_backend_buffer_ptr buffer(ggml_backend_dev_buffer_from_host_ptr(device.handle(), base, size, size));
  if (!buffer) fail(ErrorCode::out_of_memory, "{}: no memory for {} tensors", component_, weights_.size());
  for (auto& [name, weight] : weights_) {
    if (!weight.tensor) continue;
    ggml_backend_tensor_alloc(buffer.get(), weight.tensor, base);
    base += (ggml_nbytes(weight.tensor) + map_alignment - 1) / map_alignment * map_alignment;
  }
  buffers_.push_back(std::move(buffer));
}

void WeightStore::drop_pages(const ggml_tensor* weight) const {
  const auto found = weights_.find(ggml_get_name(weight));
  if (found == weights_.end() || !found->second.is_mapped) return;
  kandinsky::drop_pages(static_cast<const std::byte*>(weight->data), ggml_nbytes(weight));
}

void WeightStore::drop_pages() const {
  for (const auto& file : mappings_) kandinsky::drop_pages(file->data(), file->size());
}

void WeightStore::check_files() const {
  for (const auto& file : mappings_) file->check();
}

void WeightStore::map_files(Device& device, SourceFiles& files) {
  ggml_backend_dev_props props;
  ggml_backend_dev_get_props(device.handle(), &props);
  if (!props.caps.buffer_from_host_ptr) return;

  std::map<std::string, std::vector<Weight*>> by_file;
  for (auto& [name, weight] : weights_) {
    if (weight.tensor && may_be_mapped(weight.source)) by_file[weight.source.path].push_back(&weight);
  }
  for (auto& [path, weights] : by_file) {
    for (const Weight* weight : weights) files.check(weight->source);
    std::shared_ptr<const MappedFile> file = files.map(path);
    const uint64_t size = file->size();
    std::byte* base = const_cast<std::byte*>(file->data());  // mapped read-only; ggml only reads weights
    ggml_backend_buffer_ptr buffer(ggml_backend_dev_buffer_from_host_ptr(device.handle(), base, size, size));
    if (!buffer) continue;
    ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    for (Weight* weight : weights) {
      if (weight->source.offset > size || ggml_nbytes(weight->tensor) > size - weight->source.offset) {
        fail(ErrorCode::bad_file, "{} ends inside the tensor {}", path, weight->source.name);
      }
      ggml_backend_tensor_alloc(buffer.get(), weight->tensor, base + weight->source.offset);
      weight->is_mapped = true;
    }
    mappings_.push_back(std::move(file));
    buffers_.push_back(std::move(buffer));
  }
}

void WeightStore::allocate_rest(Device& device) {
  uint64_t bytes = 0;
  for (const auto& [name, weight] : weights_) {
    if (weight.tensor && !weight.is_mapped) bytes += ggml_nbytes(weight.tensor);
  }
  if (bytes == 0) return;
  size_t free = 0, total = 0;
  device_memory(device.handle(), &free, &total);
  const bool fits = total == 0 || bytes <= free;
  // Passes over the mapped tensors: they have data already.
  ggml_backend_buffer_ptr buffer(fits ? ggml_backend_alloc_ctx_tensors(context_.get(), device.backend()) : nullptr);
  if (!buffer) {
    fail(ErrorCode::out_of_memory,
         "{}: Expected {} MB of free memory on {} for weights but {} MB of {} MB are free", component_, megabytes(bytes), device.name(), megabytes(free), megabytes(total));
  }
  ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
  buffers_.push_back(std::move(buffer));
}

void WeightStore::read_rest(Device& device, SourceFiles& files, const std::atomic<bool>* cancel,
                            const std::function<void(uint64_t, uint64_t)>& progress) {
  std::vector<const Weight*> order;
  uint64_t done = 0;
  for (const auto& [name, weight] : weights_) {
    if (!weight.tensor) continue;
    if (weight.is_mapped) {
      done += ggml_nbytes(weight.tensor);
    } else {
      order.push_back(&weight);
    }
  }
  if (progress) progress(done, bytes_);
  std::sort(order.begin(), order.end(), [](const Weight* a, const Weight* b) {
    return std::tie(a->source.path, a->source.offset) < std::tie(b->source.path, b->source.offset);
  });
  for (const Weight* weight : order) {
    read_tensor(files, weight->source, device.threads(), cancel,
                [&](uint64_t offset, const void* data, size_t size) {
                  ggml_backend_tensor_set(weight->tensor, data, offset, size);
                });
    done += ggml_nbytes(weight->tensor);
    if (progress) progress(done, bytes_);
  }
}

}  // namespace kandinsky
