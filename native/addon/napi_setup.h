// The only includer of <napi.h>, so that these definitions always precede it. (NAPI_VERSION and
// NODE_ADDON_API_CPP_EXCEPTIONS_ALL come from CMakeLists.txt.)
#pragma once

// Electron's memory cage refuses buffers outside V8's heap; without the constructors nobody can use them by accident.
#define NODE_API_NO_EXTERNAL_BUFFERS_ALLOWED
#define NODE_ADDON_API_DISABLE_DEPRECATED
// While a worker thread is being terminated no exception can be thrown any more; that is not fatal.
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS

#include <napi.h>
