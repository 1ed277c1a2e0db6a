// How ggml's CPU threads wait for each other, included before each of its C files (CMakeLists.txt).
//
// ggml spins until the last thread has come, with a pause instruction between looks and nothing else. With more threads
// than cores, or on cores that other programs use, whoever spins keeps the awaited thread from running, for as long as
// the system lets it: 8 threads on 2 cores took 13 times as long as 2. Like the kernels' own barrier
// (kernels/cpu/common.h), a thread here looks a hundred times and then gives its core away.
//
// ggml has no setting for it (short of OpenMP, whose threads are shared with the whole process), and its
// ggml_thread_cpu_relax() is a function of ggml-cpu.c, "static inline void ggml_thread_cpu_relax(void) {...}". The macro
// of that name turns the definition (its argument is "void") into one of another name, and the calls (no argument) into
// calls of the function below. If the name changes with a version of ggml, nothing breaks, and the test of threads beyond
// the cores (test/unit/threads.test.mjs) becomes slow.
#ifndef KANDINSKY_GGML_WAITING_H
#define KANDINSKY_GGML_WAITING_H

#ifdef _WIN32
__declspec(dllimport) int __stdcall SwitchToThread(void);  // as windows.h declares it
#else
#include <sched.h>
#endif

static inline void kandinsky_wait(void) {
  static __thread unsigned looks;
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield" ::: "memory");
#endif
  if (++looks % 100 != 0) return;
#ifdef _WIN32
  SwitchToThread();
#else
  sched_yield();
#endif
}

#define ggml_thread_cpu_relax(argument) KANDINSKY_RELAX_##argument
#define KANDINSKY_RELAX_void kandinsky_unused_relax(void)
#define KANDINSKY_RELAX_ kandinsky_wait()

#endif
