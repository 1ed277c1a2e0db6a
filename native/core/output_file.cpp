#include "core/output_file.h"

#include <filesystem>

#include "core/error.h"

#ifdef _WIN32
#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <algorithm>
#else
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#endif

namespace kandinsky {

namespace fs = std::filesystem;

/// Throws unless `path` may name a new file.
static void check_target(const std::string& path) {
  const fs::path target = fs::u8path(path);
  std::error_code ignored;
  if (fs::is_directory(target, ignored))
    fail(ErrorCode::bad_file, "{} cannot be written: it is a folder", path);
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  if (!fs::is_directory(folder, ignored))
    fail(ErrorCode::file_not_found, "{} cannot be written: the folder does not exist", path);
}

void OutputFile::refuse(const std::string& what) const {
  fail(ErrorCode::bad_file, "{} cannot be written: {}", path_, what);
}

#ifdef _WIN32

static std::string last_error() { return "error " + std::to_string(GetLastError()); }

OutputFile::OutputFile(const std::string& path) : path_(path), partial_(path + ".partial") {
  check_target(path);
  // No sharing is the lock.
  handle_ = CreateFileW(fs::u8path(partial_).c_str(), GENERIC_WRITE, 0, nullptr, CREATE_ALWAYS, 0, nullptr);
  if (handle_ == INVALID_HANDLE_VALUE)
    refuse(GetLastError() == ERROR_SHARING_VIOLATION ? "it is being written already" : last_error());
}

OutputFile::~OutputFile() {
  if (committed_) return;
  if (handle_) CloseHandle(handle_);
  DeleteFileW(fs::u8path(partial_).c_str());
}

void OutputFile::write(const void* data, size_t size) {
  const char* bytes = static_cast<const char*>(data);
  while (size > 0) {
    DWORD count = 0;
    if (!WriteFile(handle_, bytes, static_cast<DWORD>(std::min<size_t>(size, 1u << 30)), &count, nullptr))
      refuse(last_error());
    bytes += count;
    size -= count;
    size_ += count;
  }
}

void OutputFile::commit() {
  if (!FlushFileBuffers(handle_)) refuse(last_error());
  CloseHandle(handle_);
  handle_ = nullptr;
  if (!MoveFileExW(fs::u8path(partial_).c_str(), fs::u8path(path_).c_str(), MOVEFILE_REPLACE_EXISTING))
    refuse(last_error());
  committed_ = true;
}

#else

OutputFile::OutputFile(const std::string& path) : path_(path), partial_(path + ".partial") {
  check_target(path);
  while (!open_and_lock()) {
  }
}

/// False if the file was renamed or deleted by its writer between opening and locking: it must be opened anew, or this
/// would write into somebody's finished file.
bool OutputFile::open_and_lock() {
  descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (descriptor_ < 0) refuse(std::strerror(errno));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    const bool is_locked = errno == EWOULDBLOCK;
    ::close(descriptor_);
    refuse(is_locked ? "it is being written already" : "it cannot be locked");
  }
  struct stat opened, named;
  const bool is_named = ::fstat(descriptor_, &opened) == 0 && ::stat(partial_.c_str(), &named) == 0 &&
                        opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
  if (is_named && ::ftruncate(descriptor_, 0) == 0) return true;
  const std::string reason = std::strerror(errno);
  ::close(descriptor_);
  if (is_named) refuse(reason);
  return false;
}

OutputFile::~OutputFile() {
  if (!committed_) ::unlink(partial_.c_str());
  ::close(descriptor_);  // after the unlink: until then nobody else can lock it
}

void OutputFile::write(const void* data, size_t size) {
  const char* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t count = ::write(descriptor_, bytes, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) refuse(std::strerror(errno));
    bytes += count;
    size -= static_cast<size_t>(count);
    size_ += static_cast<uint64_t>(count);
  }
}

void OutputFile::commit() {
  if (::fsync(descriptor_) != 0) refuse(std::strerror(errno));
  if (::rename(partial_.c_str(), path_.c_str()) != 0) refuse(std::strerror(errno));
  committed_ = true;
  // The new name is on disk only when its folder is.
  const std::string folder = fs::path(path_).parent_path().string();
  const int directory = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY);
  if (directory < 0) return;
  ::fsync(directory);
  ::close(directory);
}

#endif

}  // namespace kandinsky
