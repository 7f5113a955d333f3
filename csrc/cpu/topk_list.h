// The k best so far, as every search keeps them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace cfr::cpu {

// torch's order of values: NaN above everything.
inline bool above(float a, float b) { return a > b || (std::isnan(a) && !std::isnan(b)); }

// The k best rows of one query so far, best first; of equal values the lower index.
struct Best {
  int64_t k;
  float* values;
  int64_t* indices;

  void clear() const {
    std::fill(values, values + k, -INFINITY);
    std::fill(indices, indices + k, INT64_MAX);  // behind every row
  }

  bool before(float value, int64_t index, int64_t at) const {
    return above(value, values[at]) || (!above(values[at], value) && index < indices[at]);
  }

  void insert(float value, int64_t index) const {
    int64_t at = k;
    while (at > 0 && before(value, index, at - 1)) --at;
    if (at == k) return;
    std::copy_backward(values + at, values + k - 1, values + k);
    std::copy_backward(indices + at, indices + k - 1, indices + k);
    values[at] = value;
    indices[at] = index;
  }
};

}  // namespace cfr::cpu
