// A test is a named function; a failed check is counted and reported, and the test goes on.
#pragma once

#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "core/error.h"

namespace kandinsky::test {

struct Test {
  const char* name;
  void (*run)();
};
std::vector<Test>& registered_tests();

struct Registration {
  Registration(const char* name, void (*run)()) { registered_tests().push_back({name, run}); }
};

/// Counts one check and, if it failed, prints where and what.
void record(bool passed, const char* file, int line, const std::string& message);

/// The folder with the tiny checkpoints (--fixtures, default test/fixtures), ending in '/'.
const std::string& fixtures();

/// Where networks are computed (--device, default cpu).
const std::string& device();

/// A path in a folder of this process that is deleted at the end.
std::string temporary_path(const std::string& name);

/// Passes if `call` throws Error with this code and a message that contains `part`.
void check_throws(ErrorCode code, const std::string& part, const std::function<void()>& call, const char* file,
                  int line);

}  // namespace kandinsky::test

/// TEST(gguf_refuses_a_truncated_file) { ... } - `--filter gguf` runs the tests whose names contain "gguf".
#define TEST(name)                                                                  \
  static void name();                                                               \
  static const ::kandinsky::test::Registration registration_of_##name(#name, name); \
  static void name()

#define CHECK(condition) ::kandinsky::test::record(static_cast<bool>(condition), __FILE__, __LINE__, #condition)

#define CHECK_MESSAGE(condition, message) \
  ::kandinsky::test::record(static_cast<bool>(condition), __FILE__, __LINE__, message)

#define CHECK_CLOSE(actual, expected, tolerance)                                                          \
  do {                                                                                                    \
    const double actual_ = (actual), expected_ = (expected), tolerance_ = (tolerance);                    \
    ::kandinsky::test::record(std::fabs(actual_ - expected_) <= tolerance_, __FILE__, __LINE__,           \
                              #actual " is " + std::to_string(actual_) + ", expected " +                  \
                                  std::to_string(expected_) + " within " + std::to_string(tolerance_));   \
  } while (false)

#define CHECK_THROWS(code, part, ...) \
  ::kandinsky::test::check_throws(::kandinsky::ErrorCode::code, part, [&] { __VA_ARGS__; }, __FILE__, __LINE__)
