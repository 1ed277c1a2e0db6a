// Element-wise activation functions of ggml's operations.
#pragma once

#include "graph/graph.h"

namespace kandinsky {

/// gelu is the exact one, with erf; quick_gelu is x * sigmoid(1.702 x).
ggml_tensor* activate(Graph& g, Activation activation, ggml_tensor* x);

}  // namespace kandinsky
