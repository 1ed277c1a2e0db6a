#include "models/config_checks.h"

#include <algorithm>

#include "core/error.h"

namespace kandinsky {

namespace {

constexpr size_t max_levels = 16;

int64_t checked_size(const Config& config, const std::string& key, int64_t size) {
  if (size < 1 || size > (1 << 20)) {
    fail(ErrorCode::unsupported_model, "%s config: expected a size from 1 to 1048576 for %s but received %lld",
         config.component().c_str(), key.c_str(), static_cast<long long>(size));
  }
  return size;
}

void check_choice(const Config& config, const std::string& key, const std::vector<std::string>& known,
                  const std::string& value) {
  if (std::find(known.begin(), known.end(), value) != known.end()) return;
  std::string list;
  for (const std::string& name : known) list += (list.empty() ? "" : " or ") + name;
  fail(ErrorCode::unsupported_model, "%s config: expected %s for %s but received \"%s\"", config.component().c_str(),
       list.c_str(), key.c_str(), value.c_str());
}

void check_count(const Config& config, const std::string& key, size_t expected, size_t received) {
  if (received == expected) return;
  fail(ErrorCode::unsupported_model, "%s config: expected %zu values for %s but received %zu",
       config.component().c_str(), expected, key.c_str(), received);
}

}  // namespace

int64_t size_from(const Config& config, const std::string& key) {
  return checked_size(config, key, config.integer(key));
}

int64_t size_from(const Config& config, const std::string& key, int64_t fallback) {
  return checked_size(config, key, config.integer(key, fallback));
}

std::vector<int64_t> sizes_from(const Config& config, const std::string& key, size_t count) {
  std::vector<int64_t> sizes = config.integers(key);
  for (const int64_t size : sizes) checked_size(config, key, size);
  if (sizes.size() == 1) sizes.resize(count, sizes[0]);
  check_count(config, key, count, sizes.size());
  return sizes;
}

std::vector<int64_t> level_channels_from(const Config& config) {
  const size_t levels = config.integers("block_out_channels").size();
  if (levels < 1 || levels > max_levels) {
    fail(ErrorCode::unsupported_model, "%s config: expected 1 to %zu values for block_out_channels but received %zu",
         config.component().c_str(), max_levels, levels);
  }
  return sizes_from(config, "block_out_channels", levels);
}

std::string choice_from(const Config& config, const std::string& key, const std::vector<std::string>& known,
                        const std::string& fallback) {
  const std::string value = config.text(key, fallback);
  check_choice(config, key, known, value);
  return value;
}

std::vector<std::string> choices_from(const Config& config, const std::string& key,
                                      const std::vector<std::string>& known, size_t count) {
  const std::vector<std::string> values = config.texts(key);
  check_count(config, key, count, values.size());
  for (const std::string& value : values) check_choice(config, key, known, value);
  return values;
}

}  // namespace kandinsky
