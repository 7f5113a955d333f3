// A bank of rows packed for products in fixed point, with an upper bound of its similarities to any query:
// from a subspace of few directions plus the lengths of the rests (Cauchy–Schwarz).
#pragma once

#include "fixed_point.h"

namespace cfr::cpu {

class BoundedBank {
 public:
  static constexpr int64_t kTile = 192;     // bank rows per product, a multiple of every panel width
  static constexpr int64_t kWidth = 64;     // columns of the bound: directions and the length of the rest
  static constexpr float kSlack = 1e-5f;  // above every rounding error of the bound

  // `limit`: the similarity above which rows are wanted; it says whether the bound is worth its time.
  BoundedBank(const Kernels& kernels, const FixedKernels& fixed, const Rows& rows, float limit);

  const int16_t* tile(int64_t first) const { return packed_.get() + first * fixed_depth(rows.cols); }
  const float* projected_tile(int64_t first) const { return projected_.get() + first * kWidth; }

  // out[padded, kWidth] of packed left panels: coordinates along the directions and the length of the rest.
  void project(const float* panels, int64_t padded, float* out) const;

  const Rows rows;
  const UnitRows unit;
  float coarsest;        // the largest residual in fixed point
  bool bounded = false;  // whether the subspace tells bank rows apart at this limit

 private:
  // One step of subspace iteration from rows spread over the bank; returns the mean squared rest of its rows.
  double choose_directions();

  const Kernels& kernels_;
  const Aligned<int16_t> packed_;
  const Scratch directions_, projected_;
};

}  // namespace cfr::cpu
