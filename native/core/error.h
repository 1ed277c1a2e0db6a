// The one exception type of the engine. Its code becomes KandinskyError.code in JavaScript.
#pragma once

#include <stdexcept>
#include <string>

namespace kandinsky {

enum class ErrorCode {
  invalid_argument,
  file_not_found,
  bad_file,
  unsupported_model,
  shape_mismatch,
  out_of_memory,
  device_unavailable,
  disposed,
  aborted,  // a cancel flag was set; JavaScript turns it into signal.reason
  internal,
};

struct Error : std::runtime_error {
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code(code) {}
  ErrorCode code;
};

/// The spelling JavaScript sees, e.g. "BAD_FILE".
const char* error_code_name(ErrorCode code);

/// Throws Error with a printf-formatted message.
[[noreturn]] void fail(ErrorCode code, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace kandinsky
