// The table of NVIDIA GPUs of compute capability 8.0 or more.
#pragma once

#include "kernels/kernels.h"

namespace kandinsky {

const KernelTable& cuda_kernels();

}  // namespace kandinsky
