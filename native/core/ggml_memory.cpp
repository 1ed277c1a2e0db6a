#include "core/ggml_memory.h"

#include <cstdlib>
#include <new>

extern "C" {

void* kandinsky_expect_memory(void* data) {
  if (!data) throw std::bad_alloc();
  return data;
}

void* kandinsky_malloc(size_t size) { return kandinsky_expect_memory(std::malloc(size ? size : 1)); }

void* kandinsky_calloc(size_t count, size_t size) {
  return kandinsky_expect_memory(std::calloc(count ? count : 1, size ? size : 1));
}

void* kandinsky_realloc(void* data, size_t size) { return kandinsky_expect_memory(std::realloc(data, size ? size : 1)); }

int kandinsky_expect_thread(int status) {
  if (status != 0) throw std::bad_alloc();
  return status;
}

}  // extern "C"
