#include "core/cpu_kernels.h"

#include <cstdlib>
#include <string>

#include "core/error.h"
#include "kernels/cpu/variants.h"

namespace kandinsky {

namespace {

/// The variant that KANDINSKY_CPU names; null if it names none.
const KernelTable* forced() {
  const char* wanted = std::getenv("KANDINSKY_CPU");
  if (!wanted || !*wanted) return nullptr;
  std::string known;
  for (auto kernels = list_cpu_kernels(); *kernels; ++kernels) {
    if (std::string((*kernels)->name) == wanted) return *kernels;
    known += (known.empty() ? "" : ", ") + std::string((*kernels)->name);
  }
  fail(ErrorCode::invalid_argument, "Expected one of {} for KANDINSKY_CPU but received {}", known, wanted);
}

bool is_exact(const KernelTable& kernels) {
  return kernels.act_type == NumberType::f32 && kernels.weight_type == NumberType::f32;
}

}  // namespace

const KernelTable& cpu_kernels(bool exact) {
  static const KernelTable* const wanted = forced();
  if (wanted) return *wanted;
  auto kernels = list_cpu_kernels();
  while (exact && kernels[1] && !is_exact(**kernels)) ++kernels;
  return **kernels;
}

}  // namespace kandinsky
