// From JavaScript values to the engine's types. Nothing unchecked passes: every error names the argument, what was
// expected and what came ("Expected an integer from 0 to 9007199254740991 for tensors[3].offset but received -1").
#pragma once

#include <string>
#include <vector>

#include "addon/jobs.h"
#include "core/config.h"
#include "core/tensor_source.h"
#include "models/network.h"

namespace kandinsky::addon {

/// A value and the name that error messages give it.
struct Argument {
  Napi::Value value;
  std::string name;

  bool is_missing() const { return value.IsUndefined() || value.IsNull(); }
  std::string text() const;
  int64_t integer(int64_t minimum, int64_t maximum) const;
  double number() const;
  bool boolean() const;
  Napi::Object object() const;
  Napi::Function function() const;
  std::vector<std::string> texts() const;
  std::vector<int64_t> shape() const;  // positive sizes, outermost dimension first

  Argument operator[](const char* key) const;  // a property of an object
};

Argument argument(const Napi::CallbackInfo& info, size_t index, const char* name);

Metadata to_metadata(const Argument& argument);
std::vector<TensorSource> to_sources(const Argument& argument);
/// Copies the tensors, so that the caller may change its arrays at once.
HostTensors to_host_tensors(const Argument& argument);

Napi::Value to_js(Napi::Env env, const Value& value);
Napi::Value to_js(Napi::Env env, const Metadata& metadata);
Napi::Value to_js(Napi::Env env, const std::vector<int64_t>& shape);
Napi::Value to_js(Napi::Env env, const HostTensors& tensors);

}  // namespace kandinsky::addon
