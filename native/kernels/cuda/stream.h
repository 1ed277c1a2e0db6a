// The few calls of the CUDA runtime that are not kernels. `event`: a cudaEvent_t, which is what ggml's events hold.
#pragma once

namespace kandinsky::cuda {

/// Whether a card can run our kernels: compute capability 8.0, which has bfloat16 products and asynchronous copies.
bool supports_card(int card);
/// Null if there is none to be had.
void* new_stream(int card);
void free_stream(void* stream);
/// What this thread launches goes to `card` from now on.
void use_card(int card);

void record_event(void* stream, void* event);
void wait_for_event(void* stream, void* event);
/// Waits for all that was put on the stream. False if that, or launching it, failed.
bool finish_stream(void* stream);

}  // namespace kandinsky::cuda
