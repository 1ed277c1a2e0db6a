#include "test/fixture.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "core/cpu_kernels.h"
#include "test/check.h"

namespace kandinsky::test {

namespace {

Type safetensors_type(const std::string& name) {
  static const std::map<std::string, Type> types{
      {"F32", Type::f32}, {"F16", Type::f16}, {"BF16", Type::bf16}, {"F64", Type::f64}, {"I64", Type::i64},
      {"I32", Type::i32}, {"I16", Type::i16}, {"I8", Type::i8},     {"U8", Type::u8},   {"BOOL", Type::boolean}};
  return types.at(name);
}

}  // namespace

std::vector<TensorSource> safetensors_sources(const std::string& path) {
  const std::string content = read_text(path);
  uint64_t header = 0;
  std::memcpy(&header, content.data(), sizeof header);
  const Json index = parse_json(content.substr(sizeof header, header));
  std::vector<TensorSource> sources;
  for (const auto& [name, entry] : index.members) {
    if (name == "__metadata__") continue;
    TensorSource source;
    source.name = name;
    source.path = path;
    source.type = safetensors_type(entry["dtype"].text);
    for (const Json& size : entry["shape"].items) source.shape.push_back(static_cast<int64_t>(size.number));
    const auto& range = entry["data_offsets"].items;
    source.offset = sizeof header + header + static_cast<uint64_t>(range[0].number);
    source.bytes = static_cast<uint64_t>(range[1].number - range[0].number);
    source.target = Type::f32;
    sources.push_back(source);
  }
  return sources;
}

HostTensor read_host_tensor(const TensorSource& source) {
  const int64_t count = element_count(source.shape);
  TensorSource flat = source;  // so that nothing is repacked
  flat.shape = {count};
  HostTensor tensor;
  tensor.shape = source.shape;
  tensor.f32.resize(count);
  SourceFiles files;
  read_tensor(files, flat, 1, nullptr, [&](uint64_t offset, const void* data, size_t size) {
    std::memcpy(reinterpret_cast<char*>(tensor.f32.data()) + offset, data, size);
  });
  const Type type = source.type;
  tensor.is_int = type != Type::f32 && type != Type::f16 && type != Type::bf16 && type != Type::f64;
  if (tensor.is_int) {
    for (const float value : tensor.f32) tensor.i32.push_back(static_cast<int32_t>(value));
    tensor.f32.clear();
  }
  return tensor;
}

Component read_component(const std::string& checkpoint, const std::string& component) {
  return read_network_folder(fixtures() + "checkpoints/" + checkpoint + "/" + component + "/", component);
}

Component read_network_folder(const std::string& folder, const std::string& component) {
  const Json json = parse_json(read_text(folder + "config.json"));
  const Metadata values = metadata_of(json);
  const bool is_diffusers = json.has("_class_name");
  const std::string class_name = is_diffusers ? json["_class_name"].text : json["architectures"].items[0].text;
  std::vector<TensorSource> sources;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {  // one file, or its shards
    if (entry.path().extension() != ".safetensors") continue;
    for (TensorSource& source : safetensors_sources(entry.path().string())) {
      // As src/networks/sources.ts gives kernels over frames.
      if (source.shape.size() == 5) source.shape = {source.shape[0], element_count(source.shape) / source.shape[0]};
      sources.push_back(std::move(source));
    }
  }
  return {class_name, Config(component, values), sources};
}

double Trace::tolerance(const std::string& output) const {
  const Json& precision = description["precision"][output];
  return std::max(1e-4 * precision["std"].number, 10 * precision["float32_vs_float64"].number);
}

Trace read_trace(const std::string& name) {
  const std::string path = fixtures() + "traces/components/" + name;
  Trace trace;
  trace.name = name;
  trace.description = parse_json(read_text(path + ".json"));
  trace.checkpoint = trace.description["checkpoint"].text;
  trace.component = trace.description["component"].text;
  for (const TensorSource& source : safetensors_sources(path + ".safetensors")) {
    trace.tensors[source.name] = read_host_tensor(source);
  }
  return trace;
}

std::vector<std::string> trace_names(const std::string& prefix) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(fixtures() + "traces/components")) {
    const std::string name = entry.path().stem().string();
    if (entry.path().extension() == ".json" && name.rfind(prefix, 0) == 0) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

double largest_difference(const HostTensor& a, const HostTensor& b) {
  if (a.shape != b.shape || a.f32.size() != b.f32.size()) return INFINITY;
  double largest = 0;
  for (size_t i = 0; i < a.f32.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(a.f32[i]) - b.f32[i]);
    if (!(difference <= largest)) largest = difference;  // also for NaN
  }
  return largest;
}

double largest_value(const HostTensor& a) {
  double largest = 0;
  for (const float value : a.f32) largest = std::max(largest, std::fabs(static_cast<double>(value)));
  return largest;
}

double allowed_difference(const HostTensor& recorded, double tolerance) {
  const KernelTable& kernels = cpu_kernels(true);
  const bool is_exact = kernels.act_type == NumberType::f32 && kernels.weight_type == NumberType::f32;
  return is_exact && device() == "cpu" ? tolerance : std::max(tolerance, 0.06 * largest_value(recorded));
}

double relative_error(const HostTensor& a, const HostTensor& b) {
  if (a.shape != b.shape) return INFINITY;
  double error = 0, norm = 0;
  for (size_t i = 0; i < a.f32.size(); ++i) {
    error += std::pow(static_cast<double>(a.f32[i]) - b.f32[i], 2);
    norm += std::pow(static_cast<double>(b.f32[i]), 2);
  }
  return std::sqrt(error / norm);
}

}  // namespace kandinsky::test
