// The norms of a matrix's rows.
#pragma once

#include "../kernels.h"
#include "warp.h"

namespace cfr::cuda {

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
