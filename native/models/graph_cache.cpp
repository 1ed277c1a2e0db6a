#include "models/graph_cache.h"

#include <algorithm>

#include "core/error.h"

namespace kandinsky {

Graph& GraphCache::find(const std::string& key, const Make& make) {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.key == key; });
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
  } else {
    while (entries_.size() >= count_) entries_.pop_back();
    entries_.push_front({key, make_with_room(make)});
    while (entries_.size() > 1 && used() > bytes_) entries_.pop_back();
  }
  return *entries_.front().graph;
}

std::unique_ptr<Graph> GraphCache::make_with_room(const Make& make) {
  while (!entries_.empty()) {
    try {
      return make();
    } catch (const Error& error) {
      if (error.code != ErrorCode::out_of_memory) throw;
      entries_.pop_back();
    }
  }
  return make();
}

uint64_t GraphCache::used() const {
  uint64_t bytes = 0;
  for (const Entry& entry : entries_) bytes += entry.graph->compute_bytes();
  return bytes;
}

}  // namespace kandinsky
