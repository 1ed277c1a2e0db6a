#include "core/host_memory.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

namespace kandinsky {

namespace {

/// The number that follows `key`, or the first of the file without one; nothing for "max".
std::optional<uint64_t> number_after(const std::string& key, const std::string& path) {
  std::ifstream file(path);
  for (std::string word; key.empty() || file >> word;) {
    if (word != key) continue;
    uint64_t number = 0;
    if (file >> number) return number;
    return std::nullopt;
  }
  return std::nullopt;
}

/// The files of one control group (https://docs.kernel.org/admin-guide/cgroup-v2.html, and v1 of older systems).
struct ControlGroup {
  std::string limit, usage, statistics, cache_key;
};

/// This process's groups of both versions and all groups around them: each may have a limit, and the smallest holds. Inside
/// a container a group's path may be that of the host, of which only the innermost folders exist here, or none.
std::vector<ControlGroup> control_groups(const std::string& root) {
  const std::string v2 = root + "/sys/fs/cgroup", v1 = v2 + "/memory";
  std::vector<ControlGroup> groups;
  const auto add = [&](bool is_v2, const std::string& path) {
    const std::string folder = (is_v2 ? v2 : v1) + path;
    if (is_v2) {
      groups.push_back({folder + "/memory.max", folder + "/memory.current", folder + "/memory.stat", "inactive_file"});
    } else {
      groups.push_back({folder + "/memory.limit_in_bytes", folder + "/memory.usage_in_bytes", folder + "/memory.stat",
                        "total_inactive_file"});
    }
  };
  add(true, "");
  add(false, "");
  std::ifstream own(root + "/proc/self/cgroup");
  for (std::string line; std::getline(own, line);) {
    // "0::/a/b" of version 2, or "4:cpu,memory:/a/b" of version 1
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool is_v2 = controllers == ",,";
    if (!is_v2 && controllers.find(",memory,") == std::string::npos) continue;
    for (std::string path = line.substr(second + 1); path.size() > 1; path.resize(path.rfind('/'))) add(is_v2, path);
  }
  return groups;
}

}  // namespace

std::optional<uint64_t> available_host_memory(const std::string& root) {
  const std::optional<uint64_t> kibibytes = number_after("MemAvailable:", root + "/proc/meminfo");
  if (!kibibytes) return std::nullopt;
  uint64_t available = *kibibytes * 1024;
  for (const ControlGroup& group : control_groups(root)) {
    const auto limit = number_after("", group.limit), usage = number_after("", group.usage);
    if (!limit || !usage) continue;
    // File pages that nobody used lately go before anything is killed.
    const uint64_t cache = number_after(group.cache_key, group.statistics).value_or(0);
    const uint64_t used = *usage - std::min(*usage, cache);
    available = std::min(available, *limit - std::min(*limit, used));
  }
  return available;
}

}  // namespace kandinsky
