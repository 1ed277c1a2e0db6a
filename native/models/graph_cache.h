// The graphs that a network keeps between runs, so that calls that alternate between shapes do not build them anew and
// lose what they keep (Graph::keep).
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>

#include "graph/graph.h"

namespace kandinsky {

class GraphCache {
 public:
  using Make = std::function<std::unique_ptr<Graph>()>;

  /// At most `count` graphs; those that were not used for longest go first, also where together with a new one they would
  /// take more than `bytes`, or where a new one finds no memory.
  GraphCache(size_t count, uint64_t bytes) : count_(count), bytes_(bytes) {}

  /// The graph of that key, made where it is not there. Throws what `make` throws, out_of_memory only once nothing is
  /// kept any more.
  Graph& find(const std::string& key, const Make& make);
  void clear() { entries_.clear(); }

 private:
  struct Entry {
    std::string key;
    std::unique_ptr<Graph> graph;
  };

  std::unique_ptr<Graph> make_with_room(const Make& make);
  uint64_t used() const;

  size_t count_;
  uint64_t bytes_;
  std::list<Entry> entries_;  // last used first
};

}  // namespace kandinsky
