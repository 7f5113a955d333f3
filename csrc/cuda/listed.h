// Rows whose list and number only the device knows.
#pragma once

#include <cuda_runtime.h>

#include "../kernels.h"

namespace cfr::cuda {

// How many of `size` rows are real.
__device__ inline int64_t real_rows(const int64_t* count, int64_t size) { return count ? min(*count, size) : size; }

__device__ inline int64_t real_rows(const Listed& list) { return real_rows(list.count, list.size); }

// The `place`-th of them.
__device__ inline int64_t listed_row(const Listed& list, int64_t place) {
  return list.rows ? list.rows[place] : place;
}

}  // namespace cfr::cuda
