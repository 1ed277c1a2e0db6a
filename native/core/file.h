// A read-only file with positions of 64 bits, whose every failure is an Error that names the path.
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
  uint64_t size() const { return size_; }  // when it was opened

  /// Reads exactly `size` bytes; throws bad_file if the file ends before, or has changed its size since it was opened.
  /// Several threads may read at once.
  void read(uint64_t offset, void* destination, size_t size) const;

  /// Maps the whole file; the mapping outlives this object. Pages of a file that somebody truncates meanwhile are lost
  /// to the process (SIGBUS), which is why nothing is mapped that is not going to be used as it lies.
  std::shared_ptr<const std::byte> map() const;

 private:
  uint64_t current_size() const;

  std::string path_;
  uint64_t size_ = 0;
#ifdef _WIN32
  void* handle_ = nullptr;
#else
  int descriptor_ = -1;
#endif
};

/// Gives back the memory of the pages that lie wholly in a part of a mapping; reading them again brings them back.
void drop_pages(const std::byte* first, size_t size);

}  // namespace kandinsky
