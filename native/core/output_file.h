// A file that appears under its name only when it is complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace kandinsky {

/// Writes to a hidden file beside `path`, which commit() renames to `path`; without commit() it is deleted. The file is
/// created under a name that nobody has, ".<name>.<16 hexadecimal digits>.partial", and locked while it is written: a
/// second writer of the same path is refused, and what a killed process has left behind is cleared away.
class OutputFile {
 public:
  /// Throws file_not_found if the folder is missing, bad_file if it may not be written to or `path` is a folder.
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* data, size_t size);  // throws bad_file, e.g. when the disk is full
  uint64_t size() const { return size_; }
  /// Waits until everything is on disk, then gives the file its name.
  void commit();

 private:
  [[noreturn]] void refuse(const std::string& what) const;

  void clear_leftovers() const;

  std::string path_, partial_;
  uint64_t size_ = 0;
  bool committed_ = false;
#ifdef _WIN32
  void* handle_ = nullptr;
#else
  int descriptor_ = -1;
#endif
};

}  // namespace kandinsky
