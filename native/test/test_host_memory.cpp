// How much memory may be used: the smallest limit of all control groups around the process.
#include <filesystem>
#include <map>
#include <string>

#include "core/host_memory.h"
#include "test/check.h"
#include "test/gguf_bytes.h"

namespace kandinsky {

namespace {

/// A /proc and /sys of these files.
std::string machine(const std::string& name, const std::map<std::string, std::string>& files) {
  const std::string root = test::temporary_path(name);
  for (const auto& [file, text] : files) {
    const std::filesystem::path path = root + file;
    std::filesystem::create_directories(path.parent_path());
    test::write_bytes(path.string(), text);
  }
  return root;
}

const std::string gigabyte = "MemTotal: 9 kB\nMemAvailable: 1048576 kB\n";

}  // namespace

TEST(host_memory_without_limits_is_what_the_system_calls_available) {
  CHECK(available_host_memory(machine("none", {{"/proc/meminfo", gigabyte}})) == uint64_t{1} << 30);
  CHECK(!available_host_memory(machine("foreign", {})).has_value());
  CHECK(available_host_memory(machine("unlimited", {{"/proc/meminfo", gigabyte},
                                                    {"/proc/self/cgroup", "0::/a\n"},
                                                    {"/sys/fs/cgroup/a/memory.max", "max\n"},
                                                    {"/sys/fs/cgroup/a/memory.current", "5\n"}})) == uint64_t{1} << 30);
}

TEST(host_memory_is_limited_by_every_group_around_the_process) {
  for (const std::string group : {"/a/b/c", "/a/b", "/a", ""}) {
    const std::string folder = "/sys/fs/cgroup" + group;
    CHECK(available_host_memory(machine("v2" + group, {{"/proc/meminfo", gigabyte},
                                                       {"/proc/self/cgroup", "0::/a/b/c\n"},
                                                       {folder + "/memory.max", "1000000\n"},
                                                       {folder + "/memory.current", "300000\n"},
                                                       {folder + "/memory.stat", "anon 1\ninactive_file 100000\n"}})) ==
          800000);
  }
}

TEST(host_memory_is_limited_by_groups_of_version_1) {
  for (const std::string group : {"/docker/x", "/docker", ""}) {
    const std::string folder = "/sys/fs/cgroup/memory" + group;
    CHECK(available_host_memory(
              machine("v1" + group, {{"/proc/meminfo", gigabyte},
                                     {"/proc/self/cgroup", "5:cpuset:/other\n4:hugetlb,memory:/docker/x\n0::/\n"},
                                     {folder + "/memory.limit_in_bytes", "1000000\n"},
                                     {folder + "/memory.usage_in_bytes", "300000\n"},
                                     {folder + "/memory.stat", "cache 1\ntotal_inactive_file 100000\n"}})) == 800000);
  }
}

TEST(host_memory_is_none_beyond_a_limit) {
  CHECK(available_host_memory(machine("full", {{"/proc/meminfo", gigabyte},
                                               {"/sys/fs/cgroup/memory.max", "1000\n"},
                                               {"/sys/fs/cgroup/memory.current", "2000\n"}})) == 0);
}

}  // namespace kandinsky
