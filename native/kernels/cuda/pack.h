#pragma once

#include "kernels/kernels.h"

namespace kandinsky::cuda {

/// Values of a packed matrix.
int64_t packed_values(const WeightRows& rows);
/// Packs `rows` into `dst`, which is aligned to 16 bytes.
void expand_weights(const WeightRows& rows, uint16_t* dst, void* stream);

}  // namespace kandinsky::cuda
