// The 32 lanes of a warp acting together.
#pragma once

#include <cuda_runtime.h>

namespace cfr::cuda {

constexpr unsigned kAll = 0xffffffffu;  // every lane

// The same bits in every lane: each step adds the same two numbers, whichever comes first.
template <class T>
__device__ T warp_sum(T value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAll, value, step);
  return value;
}

}  // namespace cfr::cuda
