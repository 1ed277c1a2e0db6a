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

std::vector<ControlGroup> control_groups() {
  const auto version_2 = [](const std::string& folder) {
    return ControlGroup{folder + "/memory.max", folder + "/memory.current", folder + "/memory.stat", "inactive_file"};
  };
  std::vector<ControlGroup> groups{version_2("/sys/fs/cgroup")};  // inside a container
  const std::string v1 = "/sys/fs/cgroup/memory";
  groups.push_back({v1 + "/memory.limit_in_bytes", v1 + "/memory.usage_in_bytes", v1 + "/memory.stat",
                    "total_inactive_file"});
  std::ifstream own("/proc/self/cgroup");
  for (std::string line; std::getline(own, line);) {
    if (line.compare(0, 3, "0::") == 0) groups.push_back(version_2("/sys/fs/cgroup" + line.substr(3)));
  }
  return groups;
}

}  // namespace

std::optional<uint64_t> available_host_memory() {
  const std::optional<uint64_t> kibibytes = number_after("MemAvailable:", "/proc/meminfo");
  if (!kibibytes) return std::nullopt;
  uint64_t available = *kibibytes * 1024;
  for (const ControlGroup& group : control_groups()) {
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
