// Which of the CPU's kernel tables is used.
#pragma once

#include "kernels/kernels.h"

namespace kandinsky {

/// The fastest variant that this machine can run, or with `exact` the fastest whose activations and weights are float32
/// (for float32 checkpoints). The environment variable KANDINSKY_CPU names a variant to use instead in both cases. Throws
/// invalid_argument, naming what this machine can run, if it is not among them. The environment is read at the first
/// call.
const KernelTable& cpu_kernels(bool exact = false);

}  // namespace kandinsky
