#include "core/file.h"

#include "core/error.h"

#ifdef _WIN32
#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <algorithm>
#include <filesystem>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#endif

namespace kandinsky {

void File::read(uint64_t offset, void* destination, size_t size) const {
  if (const uint64_t now = current_size(); now != size_)
    fail(ErrorCode::bad_file, "{} changed while it was being read: it had {} bytes and now has {}", path_, size_, now);
  if (offset > size_ || size > size_ - offset)
    fail(ErrorCode::bad_file, "{} is too short: expected {} bytes at position {} but it has {} in all", path_, size, offset, size_);
  auto* bytes = static_cast<char*>(destination);
  while (size > 0) {
#ifdef _WIN32
    OVERLAPPED position = {};
    position.Offset = static_cast<DWORD>(offset);
    position.OffsetHigh = static_cast<DWORD>(offset >> 32);
    DWORD count = 0;
    const DWORD wanted = static_cast<DWORD>(std::min<size_t>(size, 1u << 30));
    if (!ReadFile(handle_, bytes, wanted, &count, &position) || count == 0)
      fail(ErrorCode::bad_file, "{} could not be read (error {})", path_, GetLastError());
#else
    const ssize_t count = ::pread(descriptor_, bytes, size, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0)
      fail(ErrorCode::bad_file, "{} could not be read: {}", path_, count == 0 ? "it ended early" : std::strerror(errno));
#endif
    bytes += count;
    offset += static_cast<uint64_t>(count);
    size -= static_cast<size_t>(count);
  }
}

#ifdef _WIN32

File::File(const std::string& path) : path_(path) {
  const std::filesystem::path wide = std::filesystem::u8path(path);
  handle_ = CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING, 0, nullptr);
  if (handle_ == INVALID_HANDLE_VALUE) {
    const DWORD error = GetLastError();
    const bool missing = error == ERROR_FILE_NOT_FOUND || error == ERROR_PATH_NOT_FOUND;
    fail(missing ? ErrorCode::file_not_found : ErrorCode::bad_file, "{} could not be opened (error {})", path, error);
  }
  size_ = current_size();
}

File::~File() { CloseHandle(handle_); }

uint64_t File::current_size() const {
  LARGE_INTEGER size;
  if (!GetFileSizeEx(handle_, &size)) fail(ErrorCode::bad_file, "{} has no size", path_);
  return static_cast<uint64_t>(size.QuadPart);
}

std::shared_ptr<const std::byte> File::map() const {
  HANDLE mapping = CreateFileMappingW(handle_, nullptr, PAGE_READONLY, 0, 0, nullptr);
  const void* address = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : nullptr;
  if (mapping) CloseHandle(mapping);  // the view keeps it alive
  if (!address) fail(ErrorCode::bad_file, "{} could not be mapped (error {})", path_, GetLastError());
  return {static_cast<const std::byte*>(address), [](const std::byte* view) { UnmapViewOfFile(view); }};
}

// The system takes a view's pages when it needs them.
void drop_pages(const std::byte*, size_t) {}

#else

File::File(const std::string& path) : path_(path) {
  // O_NONBLOCK: opening a named pipe would wait for a writer.
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) {
    const bool missing = errno == ENOENT || errno == ENOTDIR;
    fail(missing ? ErrorCode::file_not_found : ErrorCode::bad_file, "{} could not be opened: {}", path,
         std::strerror(errno));
  }
  struct stat status;
  const bool is_file = ::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
  if (!is_file) {
    ::close(descriptor_);
    fail(ErrorCode::bad_file, "{} is not a file{}", path, S_ISDIR(status.st_mode) ? " but a folder" : "");
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

File::~File() { ::close(descriptor_); }

uint64_t File::current_size() const {
  struct stat status;
  if (::fstat(descriptor_, &status) != 0) fail(ErrorCode::bad_file, "{} has no size", path_);
  return static_cast<uint64_t>(status.st_size);
}

std::shared_ptr<const std::byte> File::map() const {
  const size_t size = size_;
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor_, 0);
  if (address == MAP_FAILED)
    fail(ErrorCode::bad_file, "{} could not be mapped: {}", path_, std::strerror(errno));
  return {static_cast<const std::byte*>(address),
          [size](const std::byte* first) { ::munmap(const_cast<std::byte*>(first), size); }};
}

void drop_pages(const std::byte* first, size_t size) {
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t start = (reinterpret_cast<uintptr_t>(first) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(first) + size) / page * page;
  if (start < end) ::madvise(reinterpret_cast<void*>(start), end - start, MADV_DONTNEED);
}

#endif

}  // namespace kandinsky
