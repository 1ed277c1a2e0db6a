#include "core/error.h"

#include <cstdarg>
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

void fail(ErrorCode code, const char* format, ...) {
  // Messages carry names and paths from files; what is longer than this is cut, not refused.
  char message[2048];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  throw Error(code, message);
}

}  // namespace kandinsky
