// How ggml's C files ask for memory, included before each of them (CMakeLists.txt).
//
// ggml asserts that it gets small pieces of memory, or uses them unchecked, and so ends the process where there is none left.
// Here a lack of it throws std::bad_alloc, which unwinds ggml's C frames (-fexceptions) and becomes OUT_OF_MEMORY. What such a
// frame had taken before stays taken: hundreds of bytes mostly, up to 24 KB seen. Buffers of tensors are not concerned: ggml
// returns null for them.
#ifndef KANDINSKY_GGML_MEMORY_H
#define KANDINSKY_GGML_MEMORY_H

#ifdef _WIN32
#include <malloc.h>
#else
#include <pthread.h>
#endif
#include <stddef.h>
#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif
void* kandinsky_malloc(size_t size);
void* kandinsky_calloc(size_t count, size_t size);
void* kandinsky_realloc(void* data, size_t size);
/// `data`, unless it is null.
void* kandinsky_expect_memory(void* data);
/// `status`, unless it is not 0: no thread could be started.
int kandinsky_expect_thread(int status);
#ifdef __cplusplus
}
#else

#define malloc(size) kandinsky_malloc(size)
#define calloc(count, size) kandinsky_calloc(count, size)
#define realloc(data, size) kandinsky_realloc(data, size)
#ifdef KANDINSKY_GGML_CPU  // its thread pools; in ggml.c the definition is met
#include "ggml-impl.h"
#define ggml_aligned_malloc(size) kandinsky_expect_memory((ggml_aligned_malloc)(size))
/// ggml_cpu_init() makes an empty context for every graph and frees it: this one takes no buffer for it.
static inline struct ggml_context* kandinsky_init(struct ggml_init_params params) {
  static _Alignas(16) char nothing[16];
  if (params.mem_size == 0 && !params.mem_buffer) params.mem_buffer = nothing;
  return ggml_init(params);
}
#define ggml_init(params) kandinsky_init(params)
#ifndef _WIN32
#define pthread_create(thread, attributes, run, argument) \
  kandinsky_expect_thread((pthread_create)(thread, attributes, run, argument))
#endif
#endif

#endif
#endif
