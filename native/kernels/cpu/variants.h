// The CPU's tables, one per instruction set.
#pragma once

#include "kernels/kernels.h"

namespace kandinsky {

/// The variants that this machine can run, best first, ending in a null pointer; the last one runs anywhere.
const KernelTable* const* list_cpu_kernels();

}  // namespace kandinsky
