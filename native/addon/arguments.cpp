#include "addon/arguments.h"

#include <cmath>
#include <cstring>

namespace kandinsky::addon {

namespace {

constexpr int64_t max_safe_integer = (int64_t{1} << 53) - 1;

/// "expected" completes the sentence "Expected ...".
[[noreturn]] void refuse(const Argument& argument, const std::string& expected) {
  const Napi::Value& value = argument.value;
  std::string received = "an object";
  if (value.IsArray()) {
    received = "an array of length " + std::to_string(value.As<Napi::Array>().Length());
  } else if (value.IsFunction()) {
    received = "a function";
  } else if (value.IsString()) {
    received = "\"" + value.As<Napi::String>().Utf8Value().substr(0, 80) + "\"";
  } else if (!value.IsObject()) {
    received = value.ToString().Utf8Value();
  }
  fail(ErrorCode::invalid_argument, "Expected {} for {} but received {}", expected, argument.name, received);
}

bool is_safe_integer(double number) {
  return std::trunc(number) == number && std::fabs(number) <= static_cast<double>(max_safe_integer);
}

std::vector<Argument> items(const Argument& argument, const char* expected) {
  if (!argument.value.IsArray()) refuse(argument, expected);
  const Napi::Array array = argument.value.As<Napi::Array>();
  std::vector<Argument> result;
  for (uint32_t i = 0; i < array.Length(); ++i)
    result.push_back({array.Get(i), argument.name + "[" + std::to_string(i) + "]"});
  return result;
}

std::vector<std::pair<std::string, Argument>> entries(const Argument& argument) {
  const Napi::Object object = argument.object();
  const Napi::Env env = object.Env();
  napi_value names;
  // Own properties only, unlike GetPropertyNames().
  const auto filter = static_cast<napi_key_filter>(napi_key_enumerable | napi_key_skip_symbols);
  const napi_status status =
      napi_get_all_property_names(env, object, napi_key_own_only, filter, napi_key_numbers_to_strings, &names);
  if (status != napi_ok) throw Napi::Error::New(env);
  const Napi::Array keys(env, names);
  std::vector<std::pair<std::string, Argument>> result;
  for (uint32_t i = 0; i < keys.Length(); ++i) {
    const std::string key = keys.Get(i).ToString().Utf8Value();
    result.push_back({key, {object.Get(key), argument.name + "." + key}});
  }
  return result;
}

/// A whole number is an integer to the engine: JSON does not tell 1.0 from 1.
Value to_number(const Argument& argument) {
  const double number = argument.number();
  if (is_safe_integer(number)) return static_cast<int64_t>(number);
  return number;
}

Value to_list(const Argument& argument) {
  const std::vector<Argument> list = items(argument, "an array");
  if (list.empty()) return std::vector<int64_t>{};
  if (list[0].value.IsString()) return argument.texts();
  if (list[0].value.IsBoolean()) {
    std::vector<bool> result;
    for (const Argument& item : list) {
      if (!item.value.IsBoolean()) refuse(item, "true or false");
      result.push_back(item.value.As<Napi::Boolean>());
    }
    return result;
  }
  std::vector<int64_t> integers;
  std::vector<double> reals;
  for (const Argument& item : list) {
    const double number = item.number();
    reals.push_back(number);
    if (is_safe_integer(number)) integers.push_back(static_cast<int64_t>(number));
  }
  if (integers.size() == reals.size()) return integers;
  return reals;
}

Value to_value(const Argument& argument) {
  const Napi::Value& value = argument.value;
  if (value.IsBoolean()) return value.As<Napi::Boolean>().Value();
  if (value.IsString()) return argument.text();
  if (value.IsNumber()) return to_number(argument);
  if (value.IsArray()) return to_list(argument);
  refuse(argument, "a boolean, number, string or array of one of these");
}

TensorSource to_plain_source(const Argument& argument) {
  TensorSource source;
  source.name = argument["name"].text();
  source.path = argument["path"].text();
  source.offset = static_cast<uint64_t>(argument["offset"].integer(0, max_safe_integer));
  source.bytes = static_cast<uint64_t>(argument["bytes"].integer(0, max_safe_integer));
  source.type = parse_type(argument["type"].text());
  if (!argument["shape"].value.IsArray() || argument["shape"].value.As<Napi::Array>().Length() > 0)
    source.shape = argument["shape"].shape();
  if (const Argument stamp = argument["stamp"]; !stamp.is_missing()) source.stamp = stamp.text();
  if (const Argument stride = argument["stride"]; !stride.is_missing()) source.stride = stride.shape();
  source.target = parse_type(argument["target"].text());
  if (const Argument transposed = argument["transposed"]; !transposed.is_missing())
    source.transposed = transposed.boolean();
  if (const Argument random = argument["random"]; !random.is_missing()) {
    source.random.seed = static_cast<uint64_t>(random["seed"].integer(0, max_safe_integer));
    source.random.scale = static_cast<float>(random["scale"].number());
    source.random.mean = static_cast<float>(random["mean"].number());
  }
  return source;
}

TensorSource to_source(const Argument& argument) {
  TensorSource source = to_plain_source(argument);
  const Argument adapters = argument["adapters"];
  if (adapters.is_missing()) return source;
  for (const Argument& item : items(adapters, "an array of adapters")) {
    source.adapters.push_back({to_plain_source(item["down"]), to_plain_source(item["up"]),
                               static_cast<float>(item["scale"].number())});
  }
  return source;
}

HostTensor to_host_tensor(const Argument& argument) {
  HostTensor tensor;
  const Argument data = argument["data"];
  tensor.shape = argument["shape"].shape();
  // From here on no JavaScript runs: nothing can detach or resize the array between the check and the copy.
  if (!data.value.IsTypedArray()) refuse(data, "a Float32Array or Int32Array");
  const Napi::TypedArray array = data.value.As<Napi::TypedArray>();
  const int64_t count = element_count(tensor.shape);
  if (static_cast<uint64_t>(count) != array.ElementLength())
    fail(ErrorCode::shape_mismatch, "Expected {} values for {} of shape {} but received {}", count, argument.name, shape_text(tensor.shape), array.ElementLength());
  if (array.TypedArrayType() == napi_float32_array) {
    const float* values = array.As<Napi::Float32Array>().Data();
    tensor.f32.assign(values, values + count);
  } else if (array.TypedArrayType() == napi_int32_array) {
    const int32_t* values = array.As<Napi::Int32Array>().Data();
    tensor.i32.assign(values, values + count);
    tensor.is_int = true;
  } else {
    refuse(data, "a Float32Array or Int32Array");
  }
  return tensor;
}

struct ToJs {
  Napi::Env env;
  Napi::Value operator()(bool item) const { return Napi::Boolean::New(env, item); }
  Napi::Value operator()(int64_t item) const { return Napi::Number::New(env, static_cast<double>(item)); }
  Napi::Value operator()(double item) const { return Napi::Number::New(env, item); }
  Napi::Value operator()(const std::string& item) const { return Napi::String::New(env, item); }
  template <typename T>
  Napi::Value operator()(const std::vector<T>& list) const {
    Napi::Array array = Napi::Array::New(env, list.size());
    for (uint32_t i = 0; i < list.size(); ++i) {
      const Napi::HandleScope scope(env);  // tokenizer lists have 250,000 items
      array.Set(i, (*this)(static_cast<const T&>(list[i])));
    }
    return array;
  }
};

template <typename Array, typename T>
Napi::Value to_typed_array(Napi::Env env, const std::vector<T>& values) {
  Array array = Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(T));
  return array;
}

}  // namespace

std::string Argument::text() const {
  if (!value.IsString()) refuse(*this, "a string");
  const std::string result = value.As<Napi::String>().Utf8Value();
  // It would end a path or a name early.
  if (result.find('\0') != std::string::npos) refuse(*this, "a string without NUL characters");
  return result;
}

bool Argument::boolean() const {
  if (!value.IsBoolean()) refuse(*this, "true or false");
  return value.As<Napi::Boolean>().Value();
}

double Argument::number() const {
  if (!value.IsNumber() || !std::isfinite(value.As<Napi::Number>().DoubleValue())) refuse(*this, "a finite number");
  return value.As<Napi::Number>().DoubleValue();
}

int64_t Argument::integer(int64_t minimum, int64_t maximum) const {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  if (!is_safe_integer(number) || number < static_cast<double>(minimum) || number > static_cast<double>(maximum))
    refuse(*this, "an integer from " + std::to_string(minimum) + " to " + std::to_string(maximum));
  return static_cast<int64_t>(number);
}

Napi::Object Argument::object() const {
  if (!value.IsObject() || value.IsArray() || value.IsFunction()) refuse(*this, "an object");
  return value.As<Napi::Object>();
}

Napi::Function Argument::function() const {
  if (!value.IsFunction()) refuse(*this, "a function");
  return value.As<Napi::Function>();
}

std::vector<std::string> Argument::texts() const {
  std::vector<std::string> result;
  for (const Argument& item : items(*this, "an array of strings")) result.push_back(item.text());
  return result;
}

std::vector<int64_t> Argument::shape() const {
  std::vector<int64_t> result;
  for (const Argument& item : items(*this, "an array of positive integers"))
    result.push_back(item.integer(1, max_safe_integer));
  if (result.empty() || result.size() > 8) refuse(*this, "1 to 8 dimensions");
  return result;
}

Argument Argument::operator[](const char* key) const {
  return {object().Get(key), name + "." + key};
}

Argument argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  return {info[index], name};
}

Metadata to_metadata(const Argument& argument) {
  Metadata metadata;
  for (const auto& [key, value] : entries(argument)) metadata[key] = to_value(value);
  return metadata;
}

std::vector<TensorSource> to_sources(const Argument& argument) {
  std::vector<TensorSource> sources;
  for (const Argument& item : items(argument, "an array of tensor sources")) sources.push_back(to_source(item));
  return sources;
}

HostTensors to_host_tensors(const Argument& argument) {
  HostTensors tensors;
  for (const auto& [key, value] : entries(argument)) tensors[key] = to_host_tensor(value);
  return tensors;
}

Napi::Value to_js(Napi::Env env, const Value& value) {
  return std::visit(ToJs{env}, value);
}

Napi::Value to_js(Napi::Env env, const Metadata& metadata) {
  Napi::Object object = Napi::Object::New(env);
  // Defined, not set: a file may well have a key named "__proto__".
  for (const auto& [key, value] : metadata)
    object.DefineProperty(Napi::PropertyDescriptor::Value(key, to_js(env, value), napi_default_jsproperty));
  return object;
}

Napi::Value to_js(Napi::Env env, const std::vector<int64_t>& shape) {
  return ToJs{env}(shape);
}

Napi::Value to_js(Napi::Env env, const HostTensors& tensors) {
  Napi::Object object = Napi::Object::New(env);
  for (const auto& [name, tensor] : tensors) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("data", tensor.is_int ? to_typed_array<Napi::Int32Array>(env, tensor.i32)
                                    : to_typed_array<Napi::Float32Array>(env, tensor.f32));
    entry.Set("shape", to_js(env, tensor.shape));
    object.Set(name, entry);
  }
  return object;
}

}  // namespace kandinsky::addon
