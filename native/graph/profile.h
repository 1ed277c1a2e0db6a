// Where a graph's time goes.
#pragma once

#include "ggml-backend.h"

namespace kandinsky {

/// Whether the environment variable KANDINSKY_PROFILE is 1 (read once): every run of a graph then goes through
/// compute_profiled.
bool is_profiling();

/// Like ggml_backend_graph_compute, but one node after the other; then prints to stderr how often and how long each kind
/// of node ran. Starting the threads for each node adds some 10 microseconds to it.
ggml_status compute_profiled(ggml_backend_t backend, ggml_cgraph* graph);

}  // namespace kandinsky
