// What the fuzzing programs share. Each is one function that libFuzzer calls with bytes it makes up, guided by what they
// reach in the code: whatever they are, they are used or refused with an Error, within the limits of the sanitizers.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <string>

#include "core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace kandinsky::fuzz {

/// Ends the process, which is how a fuzzing program reports what it found.
[[noreturn]] inline void report(const char* what, const std::string& detail = "") {
  std::fprintf(stderr, "FOUND: %s %s\n", what, detail.c_str());
  std::abort();
}

#define EXPECT(condition) \
  if (!(condition)) ::kandinsky::fuzz::report(#condition)

/// A file in memory with a path.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(::memfd_create("input", MFD_CLOEXEC)) { EXPECT(descriptor_ >= 0); }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  void set(const uint8_t* data, size_t size) {
    EXPECT(::ftruncate(descriptor_, 0) == 0);
    EXPECT(::pwrite(descriptor_, data, size, 0) == static_cast<ssize_t>(size));
  }
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

/// Runs `body`. True if it ended well, false if it was refused with one of these codes; anything else is a finding.
template <typename Body>
bool is_accepted(std::initializer_list<ErrorCode> refusals, Body body) {
  try {
    body();
    return true;
  } catch (const Error& error) {
    for (const ErrorCode code : refusals)
      if (error.code == code) return false;
    report("an unexpected error", std::string(error_code_name(error.code)) + ": " + error.what());
  }
}

}  // namespace kandinsky::fuzz
