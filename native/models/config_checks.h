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

/// block_out_channels: the widths of 1 to 16 levels.
std::vector<int64_t> level_channels_from(const Config& config);

/// One of `known`; an absent key stands for `fallback`, which need not be known.
std::string choice_from(const Config& config, const std::string& key, const std::vector<std::string>& known,
                        const std::string& fallback);

/// A list of `count` of them.
std::vector<std::string> choices_from(const Config& config, const std::string& key,
                                      const std::vector<std::string>& known, size_t count);

}  // namespace kandinsky
