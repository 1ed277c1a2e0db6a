// Memory that ends at any moment: one allocation after the other fails, in every place of loading, running and converting,
// once alone and once with all that follow. Each time the call ends with out_of_memory (or can do without), and the next
// one is right. KANDINSKY_EVERY_ALLOCATION=1 tries every place, otherwise a sample.
#ifdef KANDINSKY_FAILING_ALLOCATIONS
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <new>

#include "core/gguf_file.h"
#include "core/gguf_writer.h"
#include "models/network.h"
#include "test/check.h"
#include "test/fixture.h"

using namespace kandinsky;
using namespace kandinsky::test;

static std::atomic<int64_t> passing{INT64_MAX};  // allocations until the one that fails
static std::atomic<bool> lasting{false};         // all after it fail as well

static bool fails() {
  const int64_t left = passing.fetch_sub(1, std::memory_order_relaxed);
  return left == 0 || (left < 0 && lasting);
}

extern "C" {
void* __real_malloc(size_t size);
void* __real_calloc(size_t count, size_t size);
void* __real_realloc(void* data, size_t size);
int __real_posix_memalign(void** data, size_t alignment, size_t size);
void* __real_mmap(void* address, size_t size, int protection, int flags, int descriptor, off_t offset);
int __real_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument);

void* __wrap_malloc(size_t size) { return fails() ? nullptr : __real_malloc(size); }
void* __wrap_calloc(size_t count, size_t size) { return fails() ? nullptr : __real_calloc(count, size); }
void* __wrap_realloc(void* data, size_t size) { return fails() ? nullptr : __real_realloc(data, size); }
int __wrap_posix_memalign(void** data, size_t alignment, size_t size) {
  return fails() ? ENOMEM : __real_posix_memalign(data, alignment, size);
}
void* __wrap_mmap(void* address, size_t size, int protection, int flags, int descriptor, off_t offset) {
  if (!fails()) return __real_mmap(address, size, protection, flags, descriptor, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}
int __wrap_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
  return fails() ? EAGAIN : __real_pthread_create(thread, attributes, run, argument);
}
}

/// What ggml loses where it gets no more (core/ggml_memory.h), for LeakSanitizer.
extern "C" const char* __lsan_default_suppressions() { return "leak:ggml_gallocr_\nleak:alloc_tensor_range\n"; }

static void* taken(void* data) {
  if (!data) throw std::bad_alloc();
  return data;
}
void* operator new(size_t size) { return taken(fails() ? nullptr : __real_malloc(size ? size : 1)); }
void* operator new(size_t size, std::align_val_t alignment) {
  void* data = nullptr;
  if (!fails()) (void)__real_posix_memalign(&data, static_cast<size_t>(alignment), size);
  return taken(data);
}
void operator delete(void* data) noexcept { std::free(data); }
void operator delete(void* data, size_t) noexcept { std::free(data); }
void operator delete(void* data, std::align_val_t) noexcept { std::free(data); }
void operator delete(void* data, size_t, std::align_val_t) noexcept { std::free(data); }

namespace {

/// Allocations of `call` when none fails.
int64_t count_of(const std::function<void()>& call) {
  passing = INT64_MAX;
  call();
  return INT64_MAX - passing.load();
}

void fail_everywhere(const char* name, const std::function<void()>& call) {
  call();  // what a process makes once
  const int64_t count = count_of(call);
  CHECK(count > 0);
  const char* every = std::getenv("KANDINSKY_EVERY_ALLOCATION");
  const int64_t step = every && *every ? 1 : std::max<int64_t>(1, count / 61);
  int64_t refused = 0;
  for (const bool all : {false, true}) {
    for (int64_t place = 0; place < count; place += step) {
      std::string problem;
      lasting = all;
      passing = place;
      const auto end = [] {
        passing = INT64_MAX;
        lasting = false;
      };
      try {
        call();
        end();
      } catch (const Error& error) {
        end();
        ++refused;
        if (error.code != ErrorCode::out_of_memory) problem = error.what();
      } catch (const std::bad_alloc&) {
        end();
        ++refused;
      } catch (const std::exception& error) {
        end();
        problem = error.what();
      }
      record(problem.empty(), __FILE__, __LINE__,
             std::string(name) + ", allocation " + std::to_string(place) + " of " + std::to_string(count) + ": " + problem);
    }
  }
  CHECK(refused > 0);
  if (std::getenv("KANDINSKY_EVERY_ALLOCATION")) std::printf("%s: %lld allocations, %lld refusals\n", name, (long long)count, (long long)refused);
}

/// Bytes that are taken.
size_t used() {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  return mallinfo2().uordblks + mallinfo2().hblkhd;
#else
  return 0;
#endif
}

void expect_no_more(size_t before) {
  const int64_t grown = static_cast<int64_t>(used()) - static_cast<int64_t>(before);
  // ggml loses what one of its functions had taken before the allocation that failed (core/ggml_memory.h).
  const int64_t allowed = std::getenv("KANDINSKY_EVERY_ALLOCATION") ? 16 << 20 : 1 << 20;
  record(grown < allowed, __FILE__, __LINE__, "memory grew by " + std::to_string(grown) + " bytes");
}

std::unique_ptr<Network> load_movq(const Component& movq) {
  LoadOptions options;
  options.threads = 2;
  return load_network(movq.class_name, movq.config, movq.sources, options);
}

HostTensors latents() { return {{"latents", {{1, 4, 8, 8}, std::vector<float>(256, 0.5f), {}, false}}}; }

}  // namespace

TEST(failing_allocations_of_loading) {
  const Component movq = read_component("kandinsky-2-2-decoder", "movq");
  const HostTensors inputs = latents(), expected = load_movq(movq)->run("decode", inputs, {});
  const size_t before = used();
  fail_everywhere("loading", [&] { load_movq(movq); });
  expect_no_more(before);
  CHECK(load_movq(movq)->run("decode", inputs, {}).at("sample").f32 == expected.at("sample").f32);
}

TEST(failing_allocations_of_running) {
  const Component movq = read_component("kandinsky-2-2-decoder", "movq");
  const Component text = read_component("kandinsky-2-2-prior", "text_encoder");
  const HostTensors inputs = latents();
  const HostTensors ids{{"input_ids", {{1, 77}, {}, std::vector<int32_t>(77, 1), true}}};
  const auto decoder = load_movq(movq), encoder = load_network(text.class_name, text.config, text.sources, {});
  const HostTensors picture = decoder->run("decode", inputs, {});
  const std::string method = "forward";
  const HostTensors embedding = encoder->run(method, ids, {});
  const size_t before = used();
  fail_everywhere("decoding", [&] { decoder->run("decode", inputs, {}); });
  fail_everywhere("encoding", [&] { encoder->run(method, ids, {}); });
  expect_no_more(before);
  CHECK(decoder->run("decode", inputs, {}).at("sample").f32 == picture.at("sample").f32);
  for (const auto& [name, tensor] : encoder->run(method, ids, {})) CHECK(tensor.f32 == embedding.at(name).f32);
}

TEST(failing_allocations_of_converting) {
  namespace fs = std::filesystem;
  Component movq = read_component("kandinsky-2-2-decoder", "movq");
  for (TensorSource& source : movq.sources) {
    if (source.shape.size() > 1 && source.shape.back() % 32 == 0) source.target = Type::q8_0;
  }
  const std::string folder = temporary_path("failing"), path = folder + "/out.gguf";
  fs::create_directories(folder);
  const size_t before = used();
  fail_everywhere("converting", [&] { write_gguf(path, {}, movq.sources, 2, nullptr, nullptr); });
  fail_everywhere("reading", [&] { read_gguf(path); });
  expect_no_more(before);
  CHECK(std::distance(fs::directory_iterator(folder), fs::directory_iterator()) == 1);
  CHECK(read_gguf(path).tensors.size() == movq.sources.size());
}
#endif
