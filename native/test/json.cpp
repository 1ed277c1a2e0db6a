#include "test/json.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

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

}  // namespace

Json parse_json(const std::string& text) { return Parser(text).value(); }

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be read");
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

/// As parseConfig in src/checkpoint/repository.ts: values of nested objects get the names of all levels.
static void add_values(Metadata& values, const std::string& prefix, const Json& object) {
  for (const auto& [key, value] : object.members) {
    if (value.kind == Json::Kind::object) {
      add_values(values, prefix + key + ".", value);
    } else if (value.kind != Json::Kind::null) {
      values[prefix + key] = config_value(value);
    }
  }
}

Metadata metadata_of(const Json& object) {
  Metadata values;
  add_values(values, "", object);
  return values;
}

}  // namespace kandinsky::test
