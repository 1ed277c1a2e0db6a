#include "graph/profile.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "ggml-cpp.h"

namespace kandinsky {

namespace {

struct Cost {
  std::string kind;
  int nodes = 0;
  double milliseconds = 0;
};

bool computes(const ggml_tensor* node) {
  const ggml_op views[] = {GGML_OP_NONE, GGML_OP_RESHAPE, GGML_OP_VIEW, GGML_OP_PERMUTE, GGML_OP_TRANSPOSE};
  return std::find(std::begin(views), std::end(views), node->op) == std::end(views);
}

enum class Profile { off, kinds, shapes };

Profile wanted_profile() {
  const char* value = std::getenv("KANDINSKY_PROFILE");
  if (value && std::strcmp(value, "1") == 0) return Profile::kinds;
  return value && std::strcmp(value, "shapes") == 0 ? Profile::shapes : Profile::off;
}

std::string shape_of(const ggml_tensor* tensor) {
  std::string shape;
  for (int i = 0; i < ggml_n_dims(tensor); ++i) shape += (i ? " " : "") + std::to_string(tensor->ne[i]);
  return "[" + shape + "]";
}

/// Our kernels' nodes are named after what they do, ggml's have an operation that says it.
std::string kind_of(const ggml_tensor* node) {
  const std::string kind = node->op == GGML_OP_CUSTOM ? ggml_get_name(node) : ggml_op_desc(node);
  if (wanted_profile() == Profile::kinds) return kind;
  return kind + (node->src[0] ? " " + shape_of(node->src[0]) : "") + " to " + shape_of(node);
}

void report(const std::map<std::string, Cost>& costs) {
  std::vector<Cost> sorted;
  double total = 0;
  for (const auto& [kind, cost] : costs) {
    sorted.push_back(cost);
    total += cost.milliseconds;
  }
  std::sort(sorted.begin(), sorted.end(),
            [](const Cost& a, const Cost& b) { return a.milliseconds > b.milliseconds; });
  std::fprintf(stderr, "%10.1f ms\n", total);
  for (const Cost& cost : sorted) {
    std::fprintf(stderr, "%10.1f ms %5.1f %% %5d x %s\n", cost.milliseconds, 100 * cost.milliseconds / total, cost.nodes,
                 cost.kind.c_str());
  }
}

}  // namespace

bool is_profiling() {
  static const bool wanted = wanted_profile() != Profile::off;
  return wanted;
}

ggml_status compute_profiled(ggml_backend_t backend, ggml_cgraph* graph) {
  const ggml_context_ptr context(ggml_init({ggml_graph_overhead_custom(1, false), nullptr, true}));
  if (!context) fail(ErrorCode::out_of_memory, "no memory for a profile");
  ggml_cgraph* single = ggml_new_graph_custom(context.get(), 1, false);
  std::map<std::string, Cost> costs;
  for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
    ggml_tensor* node = ggml_graph_node(graph, i);
    if (!computes(node)) continue;
    ggml_graph_clear(single);
    ggml_graph_add_node(single, node);
    const auto begin = std::chrono::steady_clock::now();
    const ggml_status status = ggml_backend_graph_compute(backend, single);
    if (status != GGML_STATUS_SUCCESS) return status;
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - begin;
    Cost& cost = costs[kind_of(node)];
    cost.kind = kind_of(node);
    cost.nodes += 1;
    cost.milliseconds += elapsed.count();
  }
  report(costs);
  return GGML_STATUS_SUCCESS;
}

}  // namespace kandinsky
