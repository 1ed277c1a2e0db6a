// Enough JSON for recorded files and configurations.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/config.h"

namespace kandinsky::test {

struct Json {
  enum class Kind { null, boolean, number, text, list, object } kind = Kind::null;
  double number = 0;
  bool is_integer = false;
  std::string text;
  std::vector<Json> items;
  std::map<std::string, Json> members;

  const Json& operator[](const std::string& key) const { return members.at(key); }
  bool has(const std::string& key) const { return members.count(key) != 0; }
};
Json parse_json(const std::string& text);
std::string read_text(const std::string& path);
/// An object's values as a network's config has them; null is left out, those of nested objects are "outer.inner".
Metadata metadata_of(const Json& object);

}  // namespace kandinsky::test
