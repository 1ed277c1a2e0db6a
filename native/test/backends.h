#pragma once

#if KANDINSKY_DYNAMIC_BACKENDS
#include <filesystem>

#include "core/device.h"
#endif

namespace kandinsky::test {

/// Where ggml's backends are libraries: those beside the program.
inline void load_own_backends() {
#if KANDINSKY_DYNAMIC_BACKENDS
  load_backends(std::filesystem::read_symlink("/proc/self/exe").parent_path().string());
#endif
}

}  // namespace kandinsky::test
