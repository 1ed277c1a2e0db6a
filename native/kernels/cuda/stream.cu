#include "kernels/cuda/stream.h"

#include <cuda_runtime.h>

namespace kandinsky::cuda {

bool supports_card(int card) {
  int major = 0;
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, card) == cudaSuccess && major >= 8;
}

void* new_stream(int card) {
  use_card(card);
  cudaStream_t stream = nullptr;
  return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess ? stream : nullptr;
}

void free_stream(void* stream) { cudaStreamDestroy(static_cast<cudaStream_t>(stream)); }

void use_card(int card) { cudaSetDevice(card); }

void record_event(void* stream, void* event) {
  cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream));
}

void wait_for_event(void* stream, void* event) {
  cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), static_cast<cudaEvent_t>(event), 0);
}

bool finish_stream(void* stream) {
  const bool launched = cudaGetLastError() == cudaSuccess;
  return cudaStreamSynchronize(static_cast<cudaStream_t>(stream)) == cudaSuccess && launched;
}

}  // namespace kandinsky::cuda
