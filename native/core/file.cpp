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
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#endif

namespace kandinsky {

std::string File::stamp() const { return std::to_string(stamp_.size) + "@" + std::to_string(stamp_.written); }

void File::check() const {
  const Stamp now = current_stamp();
  if (now == stamp_) return;
  if (now.size != stamp_.size)
    fail(ErrorCode::bad_file, "{} changed while it was in use (it had {} bytes and now has {}); load it again", path_,
         stamp_.size, now.size);
  fail(ErrorCode::bad_file, "{} changed while it was in use (somebody wrote to it); load it again", path_);
}

void File::read(uint64_t offset, void* destination, size_t size) const {
  check();
  if (offset > stamp_.size || size > stamp_.size - offset)
    fail(ErrorCode::bad_file, "{} is too short: expected {} bytes at position {} but it has {} in all", path_, size,
         offset, stamp_.size);
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
  stamp_ = current_stamp();
}

File::~File() { CloseHandle(handle_); }

File::Stamp File::current_stamp() const {
  LARGE_INTEGER size;
  FILETIME written;
  if (!GetFileSizeEx(handle_, &size) || !GetFileTime(handle_, nullptr, nullptr, &written))
    fail(ErrorCode::bad_file, "{} has no size", path_);
  const int64_t ticks = static_cast<int64_t>(static_cast<uint64_t>(written.dwHighDateTime) << 32 | written.dwLowDateTime);
  constexpr int64_t ticks_to_1970 = 116444736000000000;  // of 100 ns, from 1601 on
  return {static_cast<uint64_t>(size.QuadPart), (ticks - ticks_to_1970) * 100};
}

MappedFile::MappedFile(std::shared_ptr<const File> file) : file_(std::move(file)) {
  HANDLE mapping = CreateFileMappingW(file_->handle_, nullptr, PAGE_READONLY, 0, 0, nullptr);
  const void* address = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : nullptr;
  if (mapping) CloseHandle(mapping);  // the view keeps it alive
  if (!address) fail(ErrorCode::bad_file, "{} could not be mapped (error {})", file_->path(), GetLastError());
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::~MappedFile() { UnmapViewOfFile(data_); }

// The file is opened so that nobody else may write to it.
void MappedFile::check() const { file_->check(); }

// The system takes a view's pages when it needs them.
void drop_pages(const std::byte*, size_t) {}

#else

/// The addresses of one mapping, for the handler of SIGBUS, which may look at any moment and may not lock.
struct Guard {
  std::atomic<uintptr_t> first{0};  // 0: the place is free
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> is_lost{false};
};

namespace {

// More than a process has models; a mapping beyond is used without a guard.
Guard guards[1024];
struct sigaction previous_handler;

/// Puts a page of zeros where a mapped file has none. Everything called here is a plain system call.
void replace_missing_page(int signal, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Guard& guard : guards) {
    const uintptr_t first = guard.first;
    if (first == 0 || address < first || address >= guard.end) continue;
    const auto page_size = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
    void* page = reinterpret_cast<void*>(address / page_size * page_size);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    if (::mmap(page, page_size, PROT_READ, flags, -1, 0) == MAP_FAILED) break;
    guard.is_lost = true;
    return;
  }
  // Somebody else's: their handler, or the system's answer when the instruction runs again.
  if (previous_handler.sa_flags & SA_SIGINFO) return previous_handler.sa_sigaction(signal, info, context);
  if (previous_handler.sa_handler != SIG_DFL && previous_handler.sa_handler != SIG_IGN)
    return previous_handler.sa_handler(signal);
  ::sigaction(signal, &previous_handler, nullptr);
}

/// Has missing pages in this range replaced. Null if there are too many ranges.
Guard* guard(const std::byte* data, uint64_t size) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  static const bool is_handled = [] {
    struct sigaction handler = {};
    handler.sa_sigaction = replace_missing_page;
    handler.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&handler.sa_mask);
    return ::sigaction(SIGBUS, &handler, &previous_handler) == 0;
  }();
  if (!is_handled) return nullptr;
  for (Guard& guard : guards) {
    if (guard.first != 0) continue;
    guard.is_lost = false;
    guard.end = reinterpret_cast<uintptr_t>(data) + size;
    guard.first = reinterpret_cast<uintptr_t>(data);
    return &guard;
  }
  return nullptr;
}

/// Nanoseconds since 1970.
int64_t written_at(const struct stat& status) {
#ifdef __APPLE__
  const timespec& time = status.st_mtimespec;
#else
  const timespec& time = status.st_mtim;
#endif
  return static_cast<int64_t>(time.tv_sec) * 1000000000 + time.tv_nsec;
}

}  // namespace

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
  stamp_ = {static_cast<uint64_t>(status.st_size), written_at(status)};
}

File::~File() { ::close(descriptor_); }

File::Stamp File::current_stamp() const {
  struct stat status;
  if (::fstat(descriptor_, &status) != 0) fail(ErrorCode::bad_file, "{} has no size", path_);
  return {static_cast<uint64_t>(status.st_size), written_at(status)};
}

MappedFile::MappedFile(std::shared_ptr<const File> file) : file_(std::move(file)) {
  void* address = ::mmap(nullptr, size(), PROT_READ, MAP_SHARED, file_->descriptor_, 0);
  if (address == MAP_FAILED) {
    fail(errno == ENOMEM ? ErrorCode::out_of_memory : ErrorCode::bad_file, "{} could not be mapped: {}", file_->path(),
         std::strerror(errno));
  }
  data_ = static_cast<const std::byte*>(address);
  guard_ = guard(data_, size());
}

MappedFile::~MappedFile() {
  if (guard_) guard_->first = 0;
  ::munmap(const_cast<std::byte*>(data_), size());
}

void MappedFile::check() const {
  file_->check();
  if (guard_ && guard_->is_lost) {
    fail(ErrorCode::bad_file, "{} could not be read while it was in use (part of it is gone, or its disk fails); load it again",
         file_->path());
  }
}

void drop_pages(const std::byte* first, size_t size) {
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t start = (reinterpret_cast<uintptr_t>(first) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(first) + size) / page * page;
  if (start < end) ::madvise(reinterpret_cast<void*>(start), end - start, MADV_DONTNEED);
}

#endif

}  // namespace kandinsky
