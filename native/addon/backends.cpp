#include "addon/environment.h"

#if KANDINSKY_DYNAMIC_BACKENDS
#include <filesystem>
#include <mutex>
#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "core/device.h"
#endif

namespace kandinsky::addon {

#if KANDINSKY_DYNAMIC_BACKENDS

static std::string addon_path() {
#ifdef _WIN32
  HMODULE module = nullptr;
  wchar_t path[32768];
  GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
                     reinterpret_cast<LPCWSTR>(&prepare_backends), &module);
  if (!module || !GetModuleFileNameW(module, path, 32768)) fail(ErrorCode::internal, "The addon cannot find itself");
  return std::filesystem::path(path).u8string();
#else
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(&prepare_backends), &info))
    fail(ErrorCode::internal, "The addon cannot find itself");
  return std::filesystem::absolute(info.dli_fname).string();
#endif
}

void prepare_backends() {
  static std::once_flag once;
  std::call_once(once, [] { load_backends(std::filesystem::path(addon_path()).parent_path().string()); });
}

#else

void prepare_backends() {}

#endif

}  // namespace kandinsky::addon
