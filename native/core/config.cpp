#include "core/config.h"

#include "core/error.h"

namespace kandinsky {

namespace {

// For error messages: long strings and lists are cut.
struct ValueText {
  std::string operator()(bool item) const { return item ? "true" : "false"; }
  std::string operator()(int64_t item) const { return std::to_string(item); }
  std::string operator()(double item) const { return text_of(item); }
  std::string operator()(const std::string& item) const { return "\"" + item.substr(0, 80) + "\""; }
  template <typename T>
  std::string operator()(const std::vector<T>& items) const {
    std::string text = "[";
    for (size_t i = 0; i < items.size() && i < 16; ++i) text += (i ? ", " : "") + (*this)(static_cast<T>(items[i]));
    return text + (items.size() > 16 ? ", ...]" : "]");
  }
};

std::string value_text(const Value& value) {
  return std::visit(ValueText{}, value);
}

[[noreturn]] void mistyped(const Config& config, const std::string& key, const std::string& expected) {
  const auto found = config.values().find(key);
  fail(ErrorCode::unsupported_model, "{} config: expected {} for {} but received {}", config.component(), expected, key, found == config.values().end() ? "nothing" : value_text(found->second));
}

/// The value if it has type T; nullptr if the key is absent; an error if it has another type.
template <typename T>
const T* find(const Config& config, const std::string& key, const char* expected) {
  const auto found = config.values().find(key);
  if (found == config.values().end()) return nullptr;
  const T* value = std::get_if<T>(&found->second);
  if (!value) mistyped(config, key, expected);
  return value;
}

template <typename T>
const T& get(const Config& config, const std::string& key, const char* expected) {
  const T* value = find<T>(config, key, expected);
  if (!value) mistyped(config, key, expected);
  return *value;
}

/// JSON writes 1.0 and 1 alike.
bool same_value(const Value& a, const Value& b) {
  const auto number = [](const Value& value) -> std::optional<double> {
    if (const int64_t* integer = std::get_if<int64_t>(&value)) return static_cast<double>(*integer);
    if (const double* real = std::get_if<double>(&value)) return *real;
    return std::nullopt;
  };
  if (number(a) && number(b)) return *number(a) == *number(b);
  return a == b;
}

}  // namespace

int64_t Config::integer(const std::string& key) const {
  return get<int64_t>(*this, key, "an integer");
}

int64_t Config::integer(const std::string& key, int64_t fallback) const {
  const int64_t* value = find<int64_t>(*this, key, "an integer");
  return value ? *value : fallback;
}

double Config::real(const std::string& key, double fallback) const {
  const auto found = values_.find(key);
  if (found != values_.end()) {
    if (const int64_t* integer = std::get_if<int64_t>(&found->second)) return static_cast<double>(*integer);
  }
  const double* value = find<double>(*this, key, "a number");
  return value ? *value : fallback;
}

bool Config::boolean(const std::string& key, bool fallback) const {
  const bool* value = find<bool>(*this, key, "true or false");
  return value ? *value : fallback;
}

std::string Config::text(const std::string& key) const {
  return get<std::string>(*this, key, "a string");
}

std::string Config::text(const std::string& key, const std::string& fallback) const {
  const std::string* value = find<std::string>(*this, key, "a string");
  return value ? *value : fallback;
}

std::vector<int64_t> Config::integers(const std::string& key) const {
  const auto found = values_.find(key);
  if (found != values_.end()) {
    if (const int64_t* scalar = std::get_if<int64_t>(&found->second)) return {*scalar};
  }
  return get<std::vector<int64_t>>(*this, key, "a list of integers");
}

std::vector<double> Config::reals(const std::string& key) const {
  const auto found = values_.find(key);
  if (found != values_.end()) {
    const auto* integers = std::get_if<std::vector<int64_t>>(&found->second);
    if (integers) return {integers->begin(), integers->end()};
  }
  return get<std::vector<double>>(*this, key, "a list of numbers");
}

std::vector<std::string> Config::texts(const std::string& key) const {
  // An empty list does not say what its items would have been; the addon makes it one of integers.
  const auto found = values_.find(key);
  if (found != values_.end() && found->second == Value(std::vector<int64_t>{})) return {};
  return get<std::vector<std::string>>(*this, key, "a list of strings");
}

Config Config::section(const std::string& name) const {
  const std::string prefix = name + ".";
  Metadata values;
  for (const auto& [key, value] : values_) {
    if (key.rfind(prefix, 0) == 0) values[key.substr(prefix.size())] = value;
  }
  return values.empty() ? *this : Config(component_, values);
}

void Config::require(const std::string& key, const Value& value) const {
  const auto found = values_.find(key);
  if (found != values_.end() && !same_value(found->second, value)) mistyped(*this, key, value_text(value));
}

void Config::require_absent(const std::string& key) const {
  const auto found = values_.find(key);
  if (found != values_.end()) mistyped(*this, key, "null");
}

}  // namespace kandinsky
