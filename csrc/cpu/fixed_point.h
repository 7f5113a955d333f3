// Products of unit rows in 16-bit fixed point, which take fewer cycles than float32, and a bound of what they
// miss: they choose the candidates, and `Exact` decides.
//
// A row x of unit length becomes integers X = round(S · x) with the residual e = ‖x − X / S‖. By
// Cauchy–Schwarz
//     |x · y − (X · Y) / (Sx · Sy)| <= ‖x − X / Sx‖ · ‖y‖ + ‖X / Sx‖ · ‖y − Y / Sy‖ <= ex + (1 + ex) · ey.
// S is at most 46,300 − √cols / 2, so that ‖X‖ <= S + √cols / 2 <= 46,300: every sum of products, partial
// ones included, stays below 46,340² < 2^31, and int32 holds it exactly.
#pragma once

#include "gemm.h"

namespace cfr::cpu {

constexpr int64_t kExactBatch = 4;  // rows that an exact product takes at once

// The innermost loops for one instruction set.
struct FixedKernels {
  int64_t left, right;  // rows of the two operands that `multiply` takes at once
  // c[left, right] (row stride `stride`) = or += a · bᵀ of panels a[pairs, left, 2], b[pairs, right, 2].
  void (*multiply)(const int16_t* a, const int16_t* b, int64_t pairs, int32_t* c, int64_t stride, bool add);
  // First position in [begin, end) whose value exceeds `bound`, else `end`; may read 8 further.
  int64_t (*first_above)(const int32_t* values, int64_t begin, int64_t end, int32_t bound);
  // out[i] = round(x[i] · factor), below 2^15 in magnitude; returns Σ (x[i] · factor − out[i])².
  float (*round)(const float* x, int64_t cols, float factor, int16_t* out);
  // out[i] = unit · keys[i] for i < kExactBatch, in an order of sums that depends on `cols` alone.
  void (*dots)(const float* unit, const float* const* keys, int64_t cols, float* out);
};

const FixedKernels& fixed_kernels();  // the variant that goes with kernels()

// A matrix with what turns its rows to unit length and to fixed point.
struct UnitRows {
  explicit UnitRows(const Rows& rows);

  // Elements or norm are no ordinary floats: such a row has no integers, and only `Exact` can compare it.
  bool special(int64_t row) const { return scale[row] == 0; }

  Rows rows;
  std::vector<float> inverse_norm;
  std::vector<float> scale;       // S of every row, 0 of a special one
  float lowest_scale;             // serves all rows that are not special
  std::vector<int64_t> specials;  // ascending
};

// The rows that a block packs: list[0], …, list[count − 1], or first, …, first + count − 1.
struct Choice {
  int64_t first, count;
  const int64_t* list = nullptr;

  int64_t operator[](int64_t i) const { return list ? list[i] : first + i; }
};

// Packs rows as [slice][panel][pairs][width][2] integers, all with `common` for S, or each with its own where
// that is 0. Odd depths, special rows and a last panel that is not full become zeros. `out` holds
// round_up(count, width) · fixed_depth(cols) integers; residual[i] (null: not wanted) becomes e of the i-th
// row.
void pack_fixed(const FixedKernels& kernels, const UnitRows& matrix, const Choice& choice, float common,
                int64_t width, int16_t* out, float* residual);

inline int64_t fixed_depth(int64_t cols) { return round_up(cols, 2); }

// c[a_rows, b_rows] = A · Bᵀ of two packed blocks; both row counts are multiples of the panel widths.
void multiply_fixed(const FixedKernels& kernels, const int16_t* a, int64_t a_rows, const int16_t* b,
                    int64_t b_rows, int64_t cols, int32_t* c);

// How far an integer product may lie from Sx · Sy times the exact similarity of rows with these residuals.
double fixed_error(double residual, double other, double scales, int64_t cols);

// The nearest int32 at or below the value.
int32_t floor_to_int32(double value);

// Similarities that decide: float32 products in one order of sums, whatever the tiling or the number of
// threads.
class Exact {
 public:
  Exact(const FixedKernels& kernels, const UnitRows& query, const UnitRows& keys);

  void choose(int64_t query_row);

  // out[i] = similarity of the chosen query and row choice[i].
  void compare(const Choice& choice, float* out) const;

 private:
  const FixedKernels& kernels_;
  const UnitRows &query_, &keys_;
  int64_t chosen_ = -1;
  Scratch unit_, special_;
};

}  // namespace cfr::cpu
