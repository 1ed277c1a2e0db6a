#include "cuda_host.h"

#include <cstdio>
#include <memory>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace kandinsky::cuda_host {

Thread* current_thread = nullptr;
Point current_block;
long bank_conflicts = 0;

namespace {

// ---- fibers: stacks to switch between -----------------------------------------------------------------------------

struct Stack {
  void* pointer = nullptr;  // where the registers of one that is not running are
  unsigned char* bottom = nullptr;
  size_t size = 0;
  void* fake_stack = nullptr;  // the address sanitizer's
};

#if defined(__x86_64__)

// Saves what a call must preserve on the stack that is left and takes it from the one that is entered. (swapcontext
// also does, with a system call each time.)
__asm__(R"(
.text
.type kandinsky_switch_stacks, @function
kandinsky_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size kandinsky_switch_stacks, .-kandinsky_switch_stacks
)");
extern "C" void kandinsky_switch_stacks(void** from, void* to);

void set_entry(Stack& stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack.bottom + stack.size) - 8;  // 6 registers, the entry, its return address
  for (int i = 0; i < 8; ++i) top[i] = nullptr;
  top[6] = reinterpret_cast<void*>(entry);
  stack.pointer = top;
}
void switch_stacks(Stack& from, Stack& to) { kandinsky_switch_stacks(&from.pointer, to.pointer); }

#else

#include <ucontext.h>

ucontext_t& context_of(Stack& stack) {
  if (!stack.pointer) stack.pointer = new ucontext_t();
  return *static_cast<ucontext_t*>(stack.pointer);
}
void set_entry(Stack& stack, void (*entry)()) {
  ucontext_t& context = context_of(stack);
  getcontext(&context);
  context.uc_stack.ss_sp = stack.bottom;
  context.uc_stack.ss_size = stack.size;
  makecontext(&context, entry, 0);
}
void switch_stacks(Stack& from, Stack& to) { swapcontext(&context_of(from), &context_of(to)); }

#endif

void enter_stack([[maybe_unused]] Stack& stack) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(stack.fake_stack, nullptr, nullptr);
#endif
}

void change_stack(Stack& from, Stack& to, [[maybe_unused]] bool comes_back = true) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(comes_back ? &from.fake_stack : nullptr, to.bottom, to.size);
#endif
  switch_stacks(from, to);
  enter_stack(from);
}

constexpr size_t stack_size = 256 << 10;

// ---- a block of threads -------------------------------------------------------------------------------------------

struct Copy {
  uint32_t target;
  const void* source;
  size_t count;
  bool is_valid;
};

struct Fiber {
  Stack stack;
  Thread thread;
  const char* waits_for = nullptr;
  bool is_done = false;
  std::vector<std::vector<Copy>> groups;  // committed copies, oldest first
  std::vector<Copy> copies;               // not committed
};

struct Warp {
  const char* operation = nullptr;
  void* operands[warp_lanes];
  int arrived = 0;
};

struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;  // kept: their stacks serve every block
  int threads = 0;
  std::vector<Fiber*> runnable;
  std::vector<Fiber*> at_barrier;
  std::vector<Warp> warps;
  Fiber* current = nullptr;
  Stack caller;
  unsigned char* shared = nullptr;
  size_t shared_size = 0;
  const std::function<void()>* kernel = nullptr;
  std::string error;
  std::mt19937 random{1};
};

Block block;

Fiber* take_runnable() {
  const size_t i = block.random() % block.runnable.size();
  Fiber* fiber = block.runnable[i];
  block.runnable[i] = block.runnable.back();
  block.runnable.pop_back();
  return fiber;
}

void resume(Fiber* next, bool comes_back) {
  Fiber* from = block.current;
  if (next == from) return;
  block.current = next;
  current_thread = &next->thread;
  change_stack(from->stack, next->stack, comes_back);
}

/// Gives the block up. (What is on the stacks of its fibers is never destroyed: no strings here.)
template <typename... Values>
[[noreturn]] void fail(const char* format, Values... values) {
  static char message[200];
  const int length = std::snprintf(message, sizeof message, format, values...);
  const Point& b = current_block;
  std::snprintf(message + length, sizeof message - length, " (block %u,%u,%u, thread %u)", b.x, b.y, b.z, current_thread->index.x);
  block.error = message;
  Fiber* from = block.current;
  change_stack(from->stack, block.caller, false);
  __builtin_unreachable();
}

/// Lets others run until one of them makes the current fiber runnable, or for good.
void leave(bool comes_back) {
  if (!block.runnable.empty()) return resume(take_runnable(), comes_back);
  int done = 0;
  for (int i = 0; i < block.threads; ++i) done += block.fibers[i]->is_done;
  if (done < block.threads) {
    int waiting = 0;
    while (block.fibers[waiting]->is_done) ++waiting;
    fail("thread %d waits at %s for threads that never come; %d have ended", waiting, block.fibers[waiting]->waits_for, done);
  }
  change_stack(block.current->stack, block.caller, comes_back);
}

void run_fiber() {
  enter_stack(block.current->stack);
  (*block.kernel)();
  block.current->is_done = true;
  leave(false);
  __builtin_unreachable();
}

void land(std::vector<Copy>& copies) {
  for (const Copy& copy : copies) {
    unsigned char* target = block.shared + copy.target;
    if (copy.is_valid) {
      std::memcpy(target, copy.source, copy.count);
    } else {
      std::memset(target, 0, copy.count);
    }
  }
}

void start_fibers(int threads) {
  while (static_cast<int>(block.fibers.size()) < threads) {
    auto fiber = std::make_unique<Fiber>();
    void* memory = mmap(nullptr, stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    fiber->stack.bottom = static_cast<unsigned char*>(memory);
    fiber->stack.size = stack_size;
    block.fibers.push_back(std::move(fiber));
  }
  block.runnable.clear();
  block.at_barrier.clear();
  block.warps.assign(threads / warp_lanes, {});
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = *block.fibers[i];
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(fiber.stack.bottom, stack_size);  // what the block before left there
#endif
    fiber.thread = {{static_cast<unsigned>(i), 0, 0}, i / warp_lanes, i % warp_lanes};
    fiber.is_done = false;
    fiber.stack.fake_stack = nullptr;
    fiber.groups.clear();
    fiber.copies.clear();
    set_entry(fiber.stack, run_fiber);
    block.runnable.push_back(&fiber);
  }
}

void run_block(int threads) {
  std::memset(block.shared, 0xff, block.shared_size);
  start_fibers(threads);
  block.current = take_runnable();
  current_thread = &block.current->thread;
  change_stack(block.caller, block.current->stack);
  if (!block.error.empty()) throw std::runtime_error(std::exchange(block.error, {}));
}

#if defined(__SANITIZE_ADDRESS__)
/// The sanitizer must know the stack that is switched back to.
void find_own_stack(Stack& stack) {
  pthread_attr_t attributes;
  void* bottom;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &bottom, &stack.size);
  pthread_attr_destroy(&attributes);
  stack.bottom = static_cast<unsigned char*>(bottom);
}
#endif

}  // namespace

unsigned char* shared_bytes() { return block.shared; }

unsigned char* shared_at(uint32_t address, size_t count, size_t alignment, const char* what) {
  if (address % alignment != 0) fail("%s at %u, which is not a multiple of %zu", what, address, alignment);
  if (address + count > block.shared_size) fail("%s at %u of %zu bytes", what, address, block.shared_size);
  return block.shared + address;
}

void synchronize() {
  block.at_barrier.push_back(block.current);
  if (static_cast<int>(block.at_barrier.size()) == block.threads) {
    block.runnable.swap(block.at_barrier);
  }
  block.current->waits_for = "__syncthreads";
  leave(true);
}

void meet_warp(const char* operation, void* operands, const std::function<void(void* const* lanes)>& compute) {
  Fiber* fiber = block.current;
  Warp& warp = block.warps[fiber->thread.warp];
  if (warp.arrived > 0 && warp.operation != operation) fail("lanes of a warp are at %s and at %s", operation, warp.operation);
  warp.operation = operation;
  warp.operands[fiber->thread.lane] = operands;
  if (++warp.arrived < warp_lanes) {
    fiber->waits_for = operation;
    return leave(true);
  }
  compute(warp.operands);
  warp.arrived = 0;
  for (int i = 0; i < warp_lanes; ++i) {
    Fiber* other = block.fibers[fiber->thread.warp * warp_lanes + i].get();
    if (other != fiber) block.runnable.push_back(other);
  }
}

void copy_async(uint32_t target, const void* source, size_t count, bool is_valid) {
  std::memset(shared_at(target, count, count, "cp.async"), 0xff, count);
  if (reinterpret_cast<uintptr_t>(source) % count != 0) fail("cp.async from an address that is not a multiple of %zu", count);
  block.current->copies.push_back({target, source, count, is_valid});
}

void commit_copies() {
  block.current->groups.push_back(std::move(block.current->copies));
  block.current->copies.clear();
}

void wait_for_copies(int groups_left) {
  auto& groups = block.current->groups;
  const int landing = static_cast<int>(groups.size()) - groups_left;
  for (int i = 0; i < landing; ++i) land(groups[i]);
  if (landing > 0) groups.erase(groups.begin(), groups.begin() + landing);
}

void run_grid(Point grid, int threads, size_t shared_size, const std::function<void()>& kernel) {
  if (threads <= 0 || threads > 1024 || threads % warp_lanes != 0) throw std::runtime_error("a block of " + std::to_string(threads) + " threads");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) throw std::runtime_error("a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z) + " blocks");
  if (shared_size > 99 << 10) throw std::runtime_error("a block with " + std::to_string(shared_size) + " bytes of shared memory");
#if defined(__SANITIZE_ADDRESS__)
  find_own_stack(block.caller);
#endif
  const std::unique_ptr<unsigned char, void (*)(unsigned char*)> shared(
      static_cast<unsigned char*>(::operator new(shared_size, std::align_val_t(128))),
      [](unsigned char* p) { ::operator delete(p, std::align_val_t(128)); });
  block.shared = shared.get();
  block.shared_size = shared_size;
  block.threads = threads;
  block.kernel = &kernel;
  const uint64_t blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks; ++i) {
    current_block = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y), static_cast<unsigned>(i / grid.x / grid.y)};
    run_block(threads);
  }
}

}  // namespace kandinsky::cuda_host

namespace kandinsky::cuda {

using namespace cuda_host;

namespace {

struct LoadOperands {
  uint32_t address;
  uint32_t* result;
};

/// Lanes 8 i to 8 i + 7 name the rows of matrix i, 8 values of 16 bits each.
void load_matrices(void* const* lanes, bool transposed) {
  const auto& operands = [lanes](int lane) -> LoadOperands& { return *static_cast<LoadOperands*>(lanes[lane]); };
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint16_t values[8][8];
    unsigned banks = 0;
    for (int row = 0; row < 8; ++row) {
      const uint32_t address = operands(8 * matrix + row).address;
      std::memcpy(values[row], shared_at(address, 16, 16, "ldmatrix"), 16);
      banks |= 1u << address / 16 % 8;
    }
    bank_conflicts += banks != 0xff;
    for (int lane = 0; lane < warp_lanes; ++lane) {
      const int row = lane / 4, column = lane % 4 * 2;
      const uint16_t low = transposed ? values[column][row] : values[row][column];
      const uint16_t high = transposed ? values[column + 1][row] : values[row][column + 1];
      operands(lane).result[matrix] = low | static_cast<uint32_t>(high) << 16;
    }
  }
}

struct ProductOperands {
  float* c;
  const uint32_t* a;
  uint32_t b[2];
};

float element(uint32_t pair, int index) { return bf16_to_float(static_cast<uint16_t>(pair >> 16 * index)); }

/// The fragments' layouts are those of PTX for mma.m16n8k16.
void multiply(void* const* lanes) {
  float a[16][16], b[8][16];
  for (int lane = 0; lane < warp_lanes; ++lane) {
    const auto& operands = *static_cast<ProductOperands*>(lanes[lane]);
    const int group = lane / 4, k = lane % 4 * 2;
    for (int i = 0; i < 2; ++i) {
      a[group][k + i] = element(operands.a[0], i);
      a[group + 8][k + i] = element(operands.a[1], i);
      a[group][k + 8 + i] = element(operands.a[2], i);
      a[group + 8][k + 8 + i] = element(operands.a[3], i);
      b[group][k + i] = element(operands.b[0], i);
      b[group][k + 8 + i] = element(operands.b[1], i);
    }
  }
  for (int lane = 0; lane < warp_lanes; ++lane) {
    float* c = static_cast<ProductOperands*>(lanes[lane])->c;
    for (int i = 0; i < 4; ++i) {
      const float *row = a[lane / 4 + i / 2 * 8], *column = b[lane % 4 * 2 + i % 2];
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += row[k] * column[k];
      c[i] += sum;
    }
  }
}

}  // namespace

void ldmatrix_x4(uint32_t (&result)[4], uint32_t address) {
  LoadOperands operands{address, result};
  meet_warp("ldmatrix", &operands, [](void* const* lanes) { load_matrices(lanes, false); });
}

void ldmatrix_x4_transposed(uint32_t (&result)[4], uint32_t address) {
  LoadOperands operands{address, result};
  meet_warp("ldmatrix.trans", &operands, [](void* const* lanes) { load_matrices(lanes, true); });
}

void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  ProductOperands operands{c, a, {b0, b1}};
  meet_warp("mma", &operands, multiply);
}

float shuffle_xor(float value, int mask) {
  struct {
    float value, result;
    int mask;
  } operands{value, 0, mask};
  using Operands = decltype(operands);
  meet_warp("shfl", &operands, [](void* const* lanes) {
    for (int lane = 0; lane < warp_lanes; ++lane) {
      auto& mine = *static_cast<Operands*>(lanes[lane]);
      mine.result = static_cast<Operands*>(lanes[lane ^ mine.mask])->value;
    }
  });
  return operands.result;
}

float half_to_float(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float magnitude = exponent == 0    ? std::ldexp(static_cast<float>(fraction), -24)
                          : exponent == 31 ? (fraction ? NAN : INFINITY)
                                           : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

float bf16_to_float(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

/// Rounds to the nearest, ties to even, as cvt.rn does.
uint32_t pack_bf16(float low, float high) {
  const auto narrow = [](float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (std::isnan(value)) return static_cast<uint32_t>(0x7fff);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  };
  return narrow(low) | narrow(high) << 16;
}

}  // namespace kandinsky::cuda
