// Sums over a warp, and the norms of a matrix's rows.
#pragma once

#include "../kernels.h"
#include "topk_list.h"

namespace cfr::cuda {

// The same bits in every lane: each step adds the same two numbers, whichever comes first.
template <class T>
__device__ T warp_sum(T value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// out[row] = 1 / max(‖row‖, 1e-12), one warp a row.
template <int kWarps>
__global__ void inverse_norms(Rows matrix, float* out) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= matrix.rows) return;
  const float* x = matrix.data + row * matrix.stride;
  double sum = 0;
  for (int64_t col = threadIdx.x % 32; col < matrix.cols; col += 32) sum += double(x[col]) * x[col];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) out[row] = static_cast<float>(1.0 / fmax(sqrt(sum), 1e-12));
}

}  // namespace cfr::cuda
