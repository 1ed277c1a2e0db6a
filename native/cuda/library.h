// What the library with our CUDA kernels offers beside ggml's interface.
#pragma once

#include "ggml-backend.h"
#include "kernels/kernels.h"

namespace kandinsky {

struct CudaLibrary {
  /// ggml-cuda's device `inner` as one whose backends also compute custom operations; null where the card is too old for
  /// our kernels. The same for the same `inner`.
  ggml_backend_dev_t (*device)(ggml_backend_dev_t inner);
  const KernelTable& (*kernels)();
  /// The stream on which a backend of such a device expects the kernels of custom operations.
  void* (*stream)(ggml_backend_t backend);
};

/// The name of its registry, and of the address of its CudaLibrary in there.
constexpr const char* cuda_library_name = "kandinsky-cuda";

}  // namespace kandinsky
