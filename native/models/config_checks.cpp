#include "models/config_checks.h"

#include <algorithm>

#include "core/error.h"

namespace kandinsky {

namespace {

constexpr size_t max_levels = 16;
constexpr int64_t max_size = 1 << 20;
constexpr int64_t max_count = 1024;

int64_t up_to(int64_t limit, const Config& config, const std::string& key, int64_t value) {
  if (value < 1 || value > limit) {
    fail(ErrorCode::unsupported_model, "{} config: expected 1 to {} for {} but received {}", config.component(), limit, key, value);
  }
  return value;
}

void check_choice(const Config& config, const std::string& key, const std::vector<std::string>& known,
                  const std::string& value) {
  if (std::find(known.begin(), known.end(), value) != known.end()) return;
  std::string list;
  for (const std::string& name : known) list += (list.empty() ? "" : " or ") + name;
  fail(ErrorCode::unsupported_model, "{} config: expected {} for {} but received \"{}\"", config.component(), list, key, value);
}

void check_count(const Config& config, const std::string& key, size_t expected, size_t received) {
  if (received == expected) return;
  fail(ErrorCode::unsupported_model, "{} config: expected {} values for {} but received {}", config.component(), expected, key, received);
}

std::vector<int64_t> list_up_to(int64_t limit, const Config& config, const std::string& key, size_t count) {
  std::vector<int64_t> values = config.integers(key);
  for (const int64_t value : values) up_to(limit, config, key, value);
  if (values.size() == 1) values.resize(count, values[0]);
  check_count(config, key, count, values.size());
  return values;
}

}  // namespace

int64_t size_from(const Config& config, const std::string& key) {
  return up_to(max_size, config, key, config.integer(key));
}

int64_t size_from(const Config& config, const std::string& key, int64_t fallback) {
  return up_to(max_size, config, key, config.integer(key, fallback));
}

std::vector<int64_t> sizes_from(const Config& config, const std::string& key, size_t count) {
  return list_up_to(max_size, config, key, count);
}

int64_t count_from(const Config& config, const std::string& key) {
  return up_to(max_count, config, key, config.integer(key));
}

int64_t count_from(const Config& config, const std::string& key, int64_t fallback) {
  return up_to(max_count, config, key, config.integer(key, fallback));
}

std::vector<int64_t> counts_from(const Config& config, const std::string& key, size_t count) {
  return list_up_to(max_count, config, key, count);
}

float eps_from(const Config& config, const std::string& key, double fallback) {
  const double eps = config.real(key, fallback);
  if (!(eps >= 0 && eps <= 1)) {
    fail(ErrorCode::unsupported_model, "{} config: expected 0 to 1 for {} but received {}", config.component(), key, eps);
  }
  return static_cast<float>(eps);
}

std::vector<int64_t> level_channels_from(const Config& config) {
  const size_t levels = config.integers("block_out_channels").size();
  if (levels < 1 || levels > max_levels) {
    fail(ErrorCode::unsupported_model, "{} config: expected 1 to {} values for block_out_channels but received {}", config.component(), max_levels, levels);
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
