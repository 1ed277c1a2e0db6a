#include "test/fixture.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "core/cpu_kernels.h"
#include "test/check.h"

namespace kandinsky::test {

namespace {

/// Enough JSON for the fixtures, which json.dump wrote; \u escapes keep only their ASCII part.
class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  Json value() {
    const char first = peek();
    if (first == '{') return object();
    if (first == '[') return list();
    Json json;
    if (first == '"') {
      json.kind = Json::Kind::text;
      json.text = string();
    } else if (first == 't' || first == 'f') {
      json.kind = Json::Kind::boolean;
      json.number = first == 't';
      at_ += first == 't' ? 4 : 5;
    } else if (first == 'n') {
      at_ += 4;
    } else {
      number(json);
    }
    return json;
  }

 private:
  char peek() {
    while (at_ < text_.size() && std::strchr(" \t\r\n,:", text_[at_])) ++at_;
    if (at_ >= text_.size()) throw std::runtime_error("JSON ends early");
    return text_[at_];
  }

  Json object() {
    Json json;
    json.kind = Json::Kind::object;
    for (++at_; peek() != '}';) {
      const std::string key = string();
      json.members[key] = value();
    }
    ++at_;
    return json;
  }

  Json list() {
    Json json;
    json.kind = Json::Kind::list;
    for (++at_; peek() != ']';) json.items.push_back(value());
    ++at_;
    return json;
  }

  std::string string() {
    std::string result;
    for (++at_; text_.at(at_) != '"'; ++at_) {
      if (text_[at_] != '\\') {
        result += text_[at_];
      } else if (text_.at(++at_) == 'u') {
        result += static_cast<char>(std::stoi(text_.substr(at_ + 1, 4), nullptr, 16) & 0x7f);
        at_ += 4;
      } else {
        result += text_[at_] == 'n' ? '\n' : text_[at_];
      }
    }
    ++at_;
    return result;
  }

  void number(Json& json) {
    const size_t end = text_.find_first_not_of("+-.0123456789eE", at_);
    const std::string digits = text_.substr(at_, end - at_);
    json.kind = Json::Kind::number;
    json.number = std::strtod(digits.c_str(), nullptr);
    json.is_integer = digits.find_first_of(".eE") == std::string::npos;
    at_ = end;
  }

  const std::string& text_;
  size_t at_ = 0;
};

Value config_value(const Json& json) {
  if (json.kind == Json::Kind::boolean) return json.number != 0;
  if (json.kind == Json::Kind::text) return json.text;
  if (json.kind == Json::Kind::number) {
    if (json.is_integer) return static_cast<int64_t>(json.number);
    return json.number;
  }
  if (!json.items.empty() && json.items[0].kind == Json::Kind::text) {
    std::vector<std::string> texts;
    for (const Json& item : json.items) texts.push_back(item.text);
    return texts;
  }
  const auto is_real = [](const Json& item) { return !item.is_integer; };
  if (std::any_of(json.items.begin(), json.items.end(), is_real)) {
    std::vector<double> reals;
    for (const Json& item : json.items) reals.push_back(item.number);
    return reals;
  }
  std::vector<int64_t> integers;
  for (const Json& item : json.items) integers.push_back(static_cast<int64_t>(item.number));
  return integers;
}

Type safetensors_type(const std::string& name) {
  static const std::map<std::string, Type> types{
      {"F32", Type::f32}, {"F16", Type::f16}, {"BF16", Type::bf16}, {"F64", Type::f64}, {"I64", Type::i64},
      {"I32", Type::i32}, {"I16", Type::i16}, {"I8", Type::i8},     {"U8", Type::u8},   {"BOOL", Type::boolean}};
  return types.at(name);
}

}  // namespace

Json parse_json(const std::string& text) { return Parser(text).value(); }

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

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
  Metadata values;
  for (const auto& [key, value] : json.members) {
    if (value.kind != Json::Kind::null && value.kind != Json::Kind::object) values[key] = config_value(value);
  }
  const bool is_diffusers = json.has("_class_name");
  const std::string class_name = is_diffusers ? json["_class_name"].text : json["architectures"].items[0].text;
  std::vector<TensorSource> sources;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {  // one file, or its shards
    if (entry.path().extension() != ".safetensors") continue;
    for (TensorSource& source : safetensors_sources(entry.path().string())) sources.push_back(std::move(source));
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
