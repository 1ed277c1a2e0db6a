// Lists the instruction sets once, by what processor and operating system support.
#include <thread>

#include "kernels/cpu/variants.h"

#if defined(__x86_64__)
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace kandinsky {

void kernel_yield() { std::this_thread::yield(); }

extern const KernelTable cpu_kernels_portable;
#if defined(__x86_64__)
extern const KernelTable cpu_kernels_avx2, cpu_kernels_avx2_f32, cpu_kernels_avx512, cpu_kernels_avx512_f32,
    cpu_kernels_avx512_bf16, cpu_kernels_amx_bf16;
#elif defined(__aarch64__)
extern const KernelTable cpu_kernels_neon, cpu_kernels_neon_f32, cpu_kernels_neon_bf16;
#endif

namespace {

constexpr int kMaxVariants = 7;

struct Variants {
  const KernelTable* list[kMaxVariants + 1] = {};
  int count = 0;
  void add(const KernelTable& kernels) { list[count++] = &kernels; }
};

#if defined(__x86_64__)

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  Registers(unsigned leaf, unsigned subleaf) { __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx); }
};

bool bit(unsigned word, int index) { return word >> index & 1; }

/// Which register sets the operating system saves (XCR0); zero if it says nothing.
unsigned saved_state() {
  if (!bit(Registers(1, 0).ecx, 27)) return 0;  // OSXSAVE
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

#ifdef KANDINSKY_HAS_AMX
/// Tile registers are 8 KB of each thread's state: a process must ask for them, and cannot have them before Linux 5.16.
bool may_use_tiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

void detect(Variants& variants) {
  const Registers vendor(0, 0), basic(1, 0), extended(7, 0), extended1(7, 1);
  const unsigned state = saved_state();
  const bool ymm = (state & 0x06) == 0x06, zmm = (state & 0xe6) == 0xe6;
  const bool avx2 = ymm && bit(basic.ecx, 12) && bit(basic.ecx, 28) && bit(basic.ecx, 29) &&
                    bit(extended.ebx, 5);  // FMA, AVX, F16C, AVX2
  const bool avx512 = avx2 && zmm && bit(extended.ebx, 16) && bit(extended.ebx, 17) && bit(extended.ebx, 30) &&
                      bit(extended.ebx, 31);  // F, DQ, BW, VL
  const bool bf16 = avx512 && extended.eax >= 1 && bit(extended1.eax, 5);
#ifdef KANDINSKY_HAS_AMX
  const bool amx = bf16 && (state & 0x60000) == 0x60000 && bit(extended.edx, 22) && bit(extended.edx, 24);
  if (amx && may_use_tiles()) variants.add(cpu_kernels_amx_bf16);
#endif
  // Intel's vectors multiply bfloat16 at two thirds of the rate of float32.
  const bool intel = vendor.ebx == 0x756e6547;
  if (bf16 && !intel) variants.add(cpu_kernels_avx512_bf16);
  if (avx512) variants.add(cpu_kernels_avx512);
  if (bf16 && intel) variants.add(cpu_kernels_avx512_bf16);
  if (avx512) variants.add(cpu_kernels_avx512_f32);
  if (avx2) variants.add(cpu_kernels_avx2);
  if (avx2) variants.add(cpu_kernels_avx2_f32);
}

#elif defined(__aarch64__)

bool has_bf16() {
#if defined(__linux__) && defined(HWCAP2_BF16)
  return getauxval(AT_HWCAP2) & HWCAP2_BF16;
#elif defined(__APPLE__)
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname("hw.optional.arm.FEAT_BF16", &value, &size, nullptr, 0) == 0 && value;
#else
  return false;
#endif
}

void detect(Variants& variants) {
  if (has_bf16()) variants.add(cpu_kernels_neon_bf16);
  variants.add(cpu_kernels_neon);
  variants.add(cpu_kernels_neon_f32);
}

#else

void detect(Variants&) {}

#endif

const Variants& variants() {
  static const Variants found = [] {
    Variants v;
    detect(v);
    v.add(cpu_kernels_portable);
    return v;
  }();
  return found;
}

}  // namespace

const KernelTable* const* list_cpu_kernels() { return variants().list; }

Algorithm choose_algorithm(int height, int width, int in_features, int out_features, bool packed) {
  if (in_features % 16 != 0 || out_features < 64) return Algorithm::direct;
  const int pixels = height * width;
  if (pixels >= 32 * 32) return Algorithm::winograd_f4;
  if (pixels >= (packed ? 16 * 16 : 8 * 8)) return Algorithm::winograd_f2;
  return Algorithm::direct;
}

}  // namespace kandinsky
