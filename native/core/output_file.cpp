#include "core/output_file.h"

#include <filesystem>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include "core/error.h"

#ifdef _WIN32
#define NOMINMAX
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <algorithm>
#else
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#endif

namespace kandinsky {

namespace fs = std::filesystem;

static fs::path folder_of(const std::string& path) {
  const fs::path target = fs::u8path(path);
  return target.has_parent_path() ? target.parent_path() : fs::path(".");
}

/// Throws unless `path` may name a new file.
static void check_target(const std::string& path) {
  const fs::path target = fs::u8path(path);
  std::error_code ignored;
  if (fs::is_directory(target, ignored))
    fail(ErrorCode::bad_file, "{} cannot be written: it is a folder", path);
  const fs::path folder = folder_of(path);
  if (!fs::is_directory(folder, ignored))
    fail(ErrorCode::file_not_found, "{} cannot be written: the folder does not exist", path);
}

static constexpr size_t random_digits = 16;

static std::string partial_prefix(const std::string& path) {
  return "." + fs::u8path(path).filename().u8string() + ".";
}

static std::string partial_name(const std::string& path) {
  static const char digits[] = "0123456789abcdef";
  std::random_device random;
  std::string name = partial_prefix(path);
  for (size_t i = 0; i < random_digits; ++i) name += digits[random() % 16];
  return (folder_of(path) / fs::u8path(name + ".partial")).u8string();
}

static bool is_partial_name(const std::string& name, const std::string& prefix) {
  const std::string suffix = ".partial";
  return name.size() == prefix.size() + random_digits + suffix.size() && name.compare(0, prefix.size(), prefix) == 0 &&
         name.find_first_not_of("0123456789abcdef", prefix.size()) == prefix.size() + random_digits &&
         name.compare(prefix.size() + random_digits, suffix.size(), suffix) == 0;
}

/// What is in a folder; nothing if it cannot be read.
static std::vector<std::string> names_in(const fs::path& folder);

/// Deletes a file that no living process writes. False if one does.
static bool remove_unless_locked(const fs::path& file);

/// Throws if somebody is writing the same target.
void OutputFile::clear_leftovers() const {
  const std::string prefix = partial_prefix(path_);
  const fs::path folder = folder_of(path_);
  for (const std::string& name : names_in(folder))
    if (is_partial_name(name, prefix) && !remove_unless_locked(folder / fs::u8path(name)))
      refuse("it is being written already");
}

void OutputFile::refuse(const std::string& what) const {
  fail(ErrorCode::bad_file, "{} cannot be written: {}", path_, what);
}

#ifdef _WIN32

static std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) names.push_back(entry.path().filename().u8string());
  return names;
}

static std::string last_error() { return "error " + std::to_string(GetLastError()); }

static bool remove_unless_locked(const fs::path& file) {
  return DeleteFileW(file.c_str()) || GetLastError() != ERROR_SHARING_VIOLATION;
}

OutputFile::OutputFile(const std::string& path) : path_(path), partial_(partial_name(path)) {
  check_target(path);
  clear_leftovers();
  // No sharing is the lock.
  handle_ = CreateFileW(fs::u8path(partial_).c_str(), GENERIC_WRITE, 0, nullptr, CREATE_NEW, 0, nullptr);
  if (handle_ == INVALID_HANDLE_VALUE) refuse(last_error());
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

/// Makes what follows one step for other writers in the same folder. Without it (some network file systems lock no
/// folders) files still never mix.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& folder) : descriptor_(::open(folder.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY)) {
    for (int i = 0; i < attempts && descriptor_ >= 0 && ::flock(descriptor_, LOCK_EX | LOCK_NB) != 0; ++i) {
      if (errno != EWOULDBLOCK && errno != EINTR) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
  ~FolderLock() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  static constexpr int attempts = 200;
  int descriptor_;
};

// Not std::filesystem's iterator: libstdc++ ends the process where that gets no memory.
static std::vector<std::string> names_in(const fs::path& folder) {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(folder.c_str()), ::closedir);
  if (!directory && errno == ENOMEM) throw std::bad_alloc();
  std::vector<std::string> names;
  while (const dirent* entry = directory ? ::readdir(directory.get()) : nullptr) names.emplace_back(entry->d_name);
  return names;
}

static bool remove_unless_locked(const fs::path& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) return true;
  const bool is_free = ::flock(descriptor, LOCK_EX | LOCK_NB) == 0;
  if (is_free) ::unlink(file.c_str());
  ::close(descriptor);
  return is_free;
}

OutputFile::OutputFile(const std::string& path) : path_(path), partial_(partial_name(path)) {
  check_target(path);
  const FolderLock lock(folder_of(path));
  clear_leftovers();
  descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (descriptor_ < 0) refuse(std::strerror(errno));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
  ::unlink(partial_.c_str());
  ::close(descriptor_);
  refuse("it cannot be locked");
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
