// Typed key-value metadata: a GGUF file's header, or one component's config.json.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace kandinsky {

/// JSON null is represented by the key's absence. Integers and reals are kept apart as the file spells them; readers
/// of reals accept integers.
/// A type of its own, because libstdc++ takes a variant of nothing but plain strings and vectors for one that always has a
/// value, and crashes where memory ends while it is copied (GCC 12).
struct Flags : std::vector<bool> {
  using std::vector<bool>::vector;
  Flags(std::vector<bool> flags) : std::vector<bool>(std::move(flags)) {}
};
using Value = std::variant<bool, int64_t, double, std::string, Flags, std::vector<int64_t>,
                           std::vector<double>, std::vector<std::string>>;
using Metadata = std::map<std::string, Value>;

/// One component's configuration. Accessors name the component and key in their errors (unsupported_model for a
/// missing or mistyped key).
class Config {
 public:
  Config() = default;
  Config(std::string component, Metadata values) : component_(std::move(component)), values_(std::move(values)) {}

  bool has(const std::string& key) const { return values_.count(key) != 0; }
  int64_t integer(const std::string& key) const;
  int64_t integer(const std::string& key, int64_t fallback) const;
  double real(const std::string& key, double fallback) const;
  bool boolean(const std::string& key, bool fallback) const;
  std::string text(const std::string& key) const;
  std::string text(const std::string& key, const std::string& fallback) const;
  std::vector<int64_t> integers(const std::string& key) const;  // a scalar counts as a list of one
  std::vector<double> reals(const std::string& key) const;
  std::vector<std::string> texts(const std::string& key) const;

  /// The values under "name.", with the rest of their names; all of them where nothing is under it.
  Config section(const std::string& name) const;

  /// Throws unsupported_model unless the key is absent or equals the only value this engine implements; absent
  /// stands for `value` too.
  void require(const std::string& key, const Value& value) const;
  /// Throws unsupported_model if the key is present (not null).
  void require_absent(const std::string& key) const;

  const std::string& component() const { return component_; }
  const Metadata& values() const { return values_; }

 private:
  std::string component_;
  Metadata values_;
};

}  // namespace kandinsky
