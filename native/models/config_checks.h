// Reading a config with checks, shared by the network files. All throw unsupported_model naming key and value.
#pragma once

#include <string>
#include <vector>

#include "core/config.h"

namespace kandinsky {

/// A count or width: 1 to 2^20.
int64_t size_from(const Config& config, const std::string& key);
int64_t size_from(const Config& config, const std::string& key, int64_t fallback);

/// A list of sizes, or one size standing for `count` equal ones.
std::vector<int64_t> sizes_from(const Config& config, const std::string& key, size_t count);

/// How often something with weights of its own repeats, e.g. layers: 1 to 1024. Without a limit a wrong number would
/// fill the memory with names before the first missing weight is noticed.
int64_t count_from(const Config& config, const std::string& key);
int64_t count_from(const Config& config, const std::string& key, int64_t fallback);
std::vector<int64_t> counts_from(const Config& config, const std::string& key, size_t count);

/// The epsilon of a norm: 0 to 1. ggml aborts the process at a negative one.
float eps_from(const Config& config, const std::string& key, double fallback);

/// block_out_channels: the widths of 1 to 16 levels.
std::vector<int64_t> level_channels_from(const Config& config);

/// One of `known`; an absent key stands for `fallback`, which need not be known.
std::string choice_from(const Config& config, const std::string& key, const std::vector<std::string>& known,
                        const std::string& fallback);

/// A list of `count` of them.
std::vector<std::string> choices_from(const Config& config, const std::string& key,
                                      const std::vector<std::string>& known, size_t count);

}  // namespace kandinsky
