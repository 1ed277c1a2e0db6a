// The one exception type of the engine. Its code becomes KandinskyError.code in JavaScript.
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

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

/// `format` with each {} replaced by the next argument. {fmt} and std::format do the same and more; the one would have to
/// be fetched for every build from source, the other needs C++20.
std::string format_text(std::string_view format, std::initializer_list<std::string> arguments);

inline std::string text_of(std::string_view text) { return std::string(text); }
std::string text_of(double number);
template <typename Integer, typename = std::enable_if_t<std::is_integral_v<Integer>>>
std::string text_of(Integer number) {
  return std::to_string(number);
}

/// Whole megabytes, for messages.
inline std::string megabytes(double bytes) { return std::to_string(static_cast<long long>(bytes / 1e6 + 0.5)); }

/// Throws Error with a message of format_text.
template <typename... Arguments>
[[noreturn]] void fail(ErrorCode code, std::string_view format, const Arguments&... arguments) {
  throw Error(code, format_text(format, {text_of(arguments)...}));
}

/// What a set cancel flag leads to.
[[noreturn]] void fail_cancelled();

}  // namespace kandinsky
