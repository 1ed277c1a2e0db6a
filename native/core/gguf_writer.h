// Writes a GGUF version 3 file that any GGUF reader understands.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/tensor_source.h"

namespace kandinsky {

/// Streams the sources, converted to their target types, into `path`. The file is written beside it under a name of its
/// own and renamed when it is complete and on disk, so `path` never holds half a file; nothing is left after an error or
/// a cancel. `progress` receives target bytes, on the calling thread.
/// Throws invalid_argument (names, duplicates), file_not_found (folder or source), bad_file (source, disk full,
/// permissions), aborted.
void write_gguf(const std::string& path, const Metadata& metadata, const std::vector<TensorSource>& sources, int threads,
                const std::atomic<bool>* cancel, const std::function<void(uint64_t done, uint64_t total)>& progress);

}  // namespace kandinsky
