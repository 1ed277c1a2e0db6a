// Which graphs a network keeps between runs.
#include "models/graph_cache.h"
#include "test/check.h"

using namespace kandinsky;

namespace {

/// Makes graphs that double a row of values and counts them.
class Maker {
 public:
  GraphCache::Make of(int64_t size) {
    return [this, size] {
      ++count;
      if (size > available) fail(ErrorCode::out_of_memory, "no memory");
      const HostTensors inputs{{"x", {{size}, std::vector<float>(size), {}, false}}};
      auto graph = std::make_unique<Graph>(device_, inputs, std::vector<std::string>{}, 16);
      graph->output("y", ggml_scale(graph->context(), graph->input("x"), 2), 1);
      graph->finish();
      return graph;
    };
  }
  int count = 0;
  int64_t available = 1 << 30;

 private:
  Device device_{"cpu", 1};
};

constexpr uint64_t much = 1 << 30;

}  // namespace

TEST(graph_cache_keeps_alternating_shapes) {
  Maker maker;
  GraphCache cache(2, much);
  Graph* first = &cache.find("a", maker.of(8));
  Graph* second = &cache.find("b", maker.of(16));
  for (int i = 0; i < 3; ++i) {
    CHECK(&cache.find("a", maker.of(8)) == first);
    CHECK(&cache.find("b", maker.of(16)) == second);
  }
  CHECK(maker.count == 2);
}

TEST(graph_cache_drops_what_was_not_used_for_longest) {
  Maker maker;
  GraphCache cache(2, much);
  cache.find("a", maker.of(8));
  cache.find("b", maker.of(8));
  cache.find("a", maker.of(8));
  cache.find("c", maker.of(8));  // b goes
  CHECK(maker.count == 3);
  cache.find("a", maker.of(8));
  CHECK(maker.count == 3);
  cache.find("b", maker.of(8));
  CHECK(maker.count == 4);
}

TEST(graph_cache_stays_within_its_memory) {
  Maker maker;
  GraphCache cache(4, 100 << 10);
  cache.find("a", maker.of(4 << 10));  // 16 KB of values in, and as many out
  cache.find("b", maker.of(4 << 10));
  cache.find("a", maker.of(4 << 10));
  CHECK(maker.count == 2);
  cache.find("large", maker.of(64 << 10));  // too large by itself, and kept alone
  cache.find("large", maker.of(64 << 10));
  CHECK(maker.count == 3);
  cache.find("a", maker.of(4 << 10));
  CHECK(maker.count == 4);
}

TEST(graph_cache_gives_way_before_memory_ends) {
  Maker maker;
  GraphCache cache(4, much);
  cache.find("a", maker.of(8));
  cache.find("b", maker.of(8));
  int tries = 0;
  // There is room once both are gone.
  cache.find("c", [&] {
    if (++tries < 3) fail(ErrorCode::out_of_memory, "no memory");
    return maker.of(8)();
  });
  CHECK(tries == 3);
  maker.available = 4;
  CHECK_THROWS(out_of_memory, "no memory", cache.find("d", maker.of(8)));
  CHECK_THROWS(bad_file, "broken", cache.find("e", [&]() -> std::unique_ptr<Graph> {
    fail(ErrorCode::bad_file, "broken");
  }));
}
