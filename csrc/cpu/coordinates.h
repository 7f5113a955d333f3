// Points in space as three arrays, and the two loops over them that every neighbour search needs.
#pragma once

#include "gemm.h"

namespace cfr::cpu {

class Coordinates {
 public:
  explicit Coordinates(const Rows& points);
  int64_t count() const { return count_; }
  const float* axis(int64_t axis) const { return values_.get() + axis * count_; }

 private:
  int64_t count_;
  Scratch values_;
};

// out[i] = squared distance of point first + i to `center`: differences, then (x² + y²) + z², as the reference.
void squared_distances(const Coordinates& points, int64_t first, int64_t count, const float* center,
                       float* out);

// First position in [begin, end) whose value is not >= bound (NaN included), else `end`; may read kOverread
// further.
int64_t first_below(const float* values, int64_t begin, int64_t end, float bound);

}  // namespace cfr::cpu
