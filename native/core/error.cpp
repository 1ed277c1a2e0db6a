#include "core/error.h"

#include <cstdio>

namespace kandinsky {

const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument: return "INVALID_ARGUMENT";
    case ErrorCode::file_not_found: return "FILE_NOT_FOUND";
    case ErrorCode::bad_file: return "BAD_FILE";
    case ErrorCode::unsupported_model: return "UNSUPPORTED_MODEL";
    case ErrorCode::shape_mismatch: return "SHAPE_MISMATCH";
    case ErrorCode::out_of_memory: return "OUT_OF_MEMORY";
    case ErrorCode::device_unavailable: return "DEVICE_UNAVAILABLE";
    case ErrorCode::disposed: return "DISPOSED";
    case ErrorCode::aborted: return "ABORTED";
    case ErrorCode::internal: break;
  }
  return "INTERNAL";
}

std::string format_text(std::string_view format, std::initializer_list<std::string> arguments) {
  // Messages carry names and paths from files; what is longer than this is cut, not refused.
  constexpr size_t max_length = 2048;
  std::string text;
  for (const std::string& argument : arguments) {
    const size_t place = format.find("{}");
    if (place == std::string_view::npos) break;
    text.append(format.substr(0, place)).append(argument);
    format.remove_prefix(place + 2);
  }
  text.append(format);
  if (text.size() > max_length) text.resize(max_length);
  return text;
}

std::string text_of(double number) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.9g", number);
  return digits;
}

void fail_cancelled() { fail(ErrorCode::aborted, "The call was cancelled"); }

}  // namespace kandinsky
