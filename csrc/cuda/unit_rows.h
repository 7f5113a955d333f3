// Unit rows in bfloat16 for the tensor cores, and how far a cosine from them may lie from the float32 one.
//
// With u = û + δ (float32 unit row, its bfloat16 rounding, the rest): u·v − û·v̂ = δ_u·v̂ + u·δ_v, so by
// Cauchy–Schwarz
//   |u·v − û·v̂| ≤ ‖δ_u‖ ‖v̂‖ + ‖u‖ ‖δ_v‖ ≤ (1 + 2^-7) (‖δ_u‖ + ‖δ_v‖).
// Rounding of the sums comes on top. Σ|u v| ≤ 1 + 2^-7, so a chain of D fused multiply-adds errs by at most D 2^-24
// of that. The tensor cores multiply exactly and add with at least 23 bits behind the largest term, cut off instead of
// rounded: at most 2^-23 for every product and for every addition to the sum, of which there is one per 8 products
// at most. Both together stay below 1.7 (D + 16) 2^-23; 3 (D + 16) 2^-23 leaves room.
#pragma once

#include "../kernels.h"
#include "launch.h"

namespace cfr::cuda {

struct UnitRows {
  uint16_t* data;        // [padded rows, cols], zeros outside the matrix
  int64_t cols;          // a multiple of the tile's depth
  float* scale;          // [rows]: 1 / max(‖x‖, 1e-12)
  float* residual;       // [rows]: ‖δ‖, rounded up; NaN for a row that is not finite
  unsigned* worst;       // bits of the largest finite residual; 0 before unit_rows, or null
};

// Fills `out` from `matrix`, with rows up to `padded`.
void unit_rows(const Rows& matrix, const UnitRows& out, int64_t padded, cudaStream_t stream);

// Bound on |float32 cosine − tensor-core cosine| for two rows of these residuals.
__device__ inline float cosine_error(float one, float other, int64_t cols) {
  return 1.01f * (one + other) + 3.0f / 8388608.0f * static_cast<float>(cols + 16);
}

// The float32 cosine: one chain over the columns, the same for every pair of rows wherever it is computed, so equal
// rows tie exactly. `wide`: all rows start at multiples of 16 bytes.
__device__ inline float exact_cosine(const float* a, float a_scale, const float* b, float b_scale, int64_t cols,
                                     bool wide) {
  float sum = 0;
  int64_t col = 0;
  if (wide) {
    for (; col + 4 <= cols; col += 4) {
      const float4 x = *reinterpret_cast<const float4*>(a + col), y = *reinterpret_cast<const float4*>(b + col);
      sum = fmaf(x.x * a_scale, y.x * b_scale, sum);
      sum = fmaf(x.y * a_scale, y.y * b_scale, sum);
      sum = fmaf(x.z * a_scale, y.z * b_scale, sum);
      sum = fmaf(x.w * a_scale, y.w * b_scale, sum);
    }
  }
  for (; col < cols; ++col) sum = fmaf(a[col] * a_scale, b[col] * b_scale, sum);
  return sum;
}

inline bool starts_wide(const Rows& matrix) {
  return reinterpret_cast<uintptr_t>(matrix.data) % 16 == 0 && matrix.stride % 4 == 0;
}

}  // namespace cfr::cuda
