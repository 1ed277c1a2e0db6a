#pragma once

namespace kandinsky::test {

/// Adds a device "cuda": the delegating backend of cuda/ around the CPU's, so that ggml's operations run on the CPU and
/// our kernels on the emulated GPU.
void emulate_cuda();

}  // namespace kandinsky::test
