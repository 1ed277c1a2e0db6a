// Which tables test_kernels.cpp tests: those of the CPU (cpu_tables.cpp), or those that a program without a CPU's has.
#pragma once

#include <vector>

#include "kernels/kernels.h"

namespace kandinsky::test {

std::vector<const KernelTable*> tested_kernels();

/// Multiplications of a shape that are worth the time: shapes with more are left to the benchmark.
double tested_multiplications();

/// Until kernels that were put on a GPU's stream have run.
void wait_for_kernels();

}  // namespace kandinsky::test
