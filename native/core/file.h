// A read-only file with positions of 64 bits, whose every failure is an Error that names the path.
//
// Other programs may write to a file, shorten or replace it while a model uses it for hours. What was read before and
// after would not belong together, so every use checks that the file is still as it was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace kandinsky {

class File {
 public:
  /// Throws file_not_found, or bad_file for a folder or a file that may not be read.
  explicit File(const std::string& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return stamp_.size; }  // when it was opened
  /// Tells versions of a file apart: bytes and time of the last write in nanoseconds since 1970, "1024@1766832000000000000".
  std::string stamp() const;

  /// Reads exactly `size` bytes; throws bad_file if the file ends before, or has changed since it was opened. Several
  /// threads may read at once.
  void read(uint64_t offset, void* destination, size_t size) const;
  /// Throws bad_file if the file has changed since it was opened.
  void check() const;

 private:
  friend class MappedFile;
  struct Stamp {
    uint64_t size = 0;
    int64_t written = 0;
    bool operator==(const Stamp& other) const { return size == other.size && written == other.written; }
  };
  Stamp current_stamp() const;

  std::string path_;
  Stamp stamp_;
#ifdef _WIN32
  void* handle_ = nullptr;
#else
  int descriptor_ = -1;
#endif
};

/// A whole file in memory. Where somebody shortens it, or its disk fails, pages are missing: the system answers a look at
/// one with a signal that ends the process (SIGBUS), which is caught here, and the page is zero from then on. Whoever
/// computes with the bytes must therefore check() afterwards, before anything is made of the results.
class MappedFile {
 public:
  explicit MappedFile(std::shared_ptr<const File> file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  uint64_t size() const { return file_->size(); }
  /// Throws bad_file if the file has changed since it was opened, or a page was missing.
  void check() const;

 private:
  std::shared_ptr<const File> file_;
  const std::byte* data_ = nullptr;
  struct Guard* guard_ = nullptr;
};

/// Gives back the memory of the pages that lie wholly in a part of a mapping; reading them again brings them back.
void drop_pages(const std::byte* first, size_t size);

}  // namespace kandinsky
