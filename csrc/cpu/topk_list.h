// The k best so far, as every top-k search keeps them.
#pragma once

#include <algorithm>
#include <cmath>

#include "gemm.h"

namespace cfr::cpu {

// torch's order of values: NaN above everything.
inline bool above(float a, float b) { return a > b || (std::isnan(a) && !std::isnan(b)); }

// Inserts into a descending list of k; a value equal to one in the list goes behind it.
inline void insert(float* values, int64_t* indices, int64_t k, float value, int64_t index) {
  int64_t at = k;
  while (at > 0 && above(value, values[at - 1])) --at;
  if (at == k) return;
  std::copy_backward(values + at, values + k - 1, values + k);
  std::copy_backward(indices + at, indices + k - 1, indices + k);
  values[at] = value;
  indices[at] = index;
}

// Takes up `count` similarities to keys first, first + 1, …; reads kOverread floats past them.
inline void search(const Kernels& kernels, const float* similarity, int64_t count, int64_t first, int64_t k,
                   float* values, int64_t* indices) {
  const auto next = [&](int64_t from) { return kernels.first_above(similarity, from, count, values[k - 1]); };
  for (int64_t at = next(0); at < count; at = next(at + 1)) insert(values, indices, k, similarity[at], first + at);
}

}  // namespace cfr::cpu
