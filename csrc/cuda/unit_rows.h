// Unit rows in bfloat16 or TF32 for the tensor cores, and how far a cosine from them may lie from the float32 one.
//
// With u = û + δ (float32 unit row, its rounding, the rest): u·v − û·v̂ = δ_u·v̂ + u·δ_v, so by
// Cauchy–Schwarz
//   |u·v − û·v̂| ≤ ‖δ_u‖ ‖v̂‖ + ‖u‖ ‖δ_v‖ ≤ (1 + 2^-7) (‖δ_u‖ + ‖δ_v‖),
// as rounding to bfloat16 changes a number by at most 2^-8 of it; to TF32 by an eighth of that, and ‖δ‖ falls with it.
// Rounding of the sums comes on top. Σ|u v| ≤ 1 + 2^-7, so a chain of D fused multiply-adds errs by at most D 2^-24
// of that. The tensor cores multiply exactly (8 by 8 bits, or 11 by 11) and add with at least 23 bits behind the
// largest term, cut off instead of rounded: at most 2^-23 for every product and for every addition to the sum, of
// which there is one per 4 products at most. Both together stay below 1.8 (D + 16) 2^-23; 3 (D + 16) 2^-23 leaves room.
#pragma once

#include "../kernels.h"
#include "carver.h"
#include "launch.h"

namespace cfr::cuda {

constexpr int kPieceBytes = 128;  // tiles take rows piece by piece

struct UnitRows {
  Precision precision;
  unsigned char* data;  // [padded, row_bytes], zeros outside the matrix
  int64_t padded;       // rows
  int64_t row_bytes;    // a multiple of kPieceBytes
  int tile;             // 0: rows one behind the other; else tiles of so many rows, piece by piece, as hopper.h has them
  float* scale;         // [rows]: 1 / max(‖x‖, 1e-12)
  float* residual;      // [rows]: ‖δ‖, rounded up; NaN for a row that is not finite
  unsigned* worst;      // bits of the largest finite residual; 0 before unit_rows, or null

  // Where byte `at` of a row lies.
  __device__ unsigned char* byte(int64_t row, int64_t at) const {
    if (tile == 0) return data + row * row_bytes + at;
    const int64_t in_tile = row % tile, chunk = at % kPieceBytes / 16 ^ row % 8;
    return data + (row - in_tile) * row_bytes + (at / kPieceBytes * tile + in_tile) * kPieceBytes + chunk * 16 + at % 16;
  }
};

// Memory for the unit rows of `matrix`, whose number is rounded up to full tiles of `tile` rows.
inline UnitRows carve_unit_rows(Carver& carver, Precision precision, const Rows& matrix, int tile, bool tiled) {
  UnitRows out = {};
  out.tile = tiled ? tile : 0;
  out.precision = precision;
  out.padded = round_up(matrix.rows, tile);
  const int64_t width = precision == Precision::tf32 ? 4 : 2;
  out.row_bytes = matrix.cols > 0 ? round_up(matrix.cols * width, kPieceBytes) : kPieceBytes;
  out.data = carver.take<unsigned char>(out.padded * out.row_bytes);
  out.scale = carver.take<float>(matrix.rows);
  out.residual = carver.take<float>(matrix.rows);
  return out;
}

// Fills `out` from `matrix`.
void unit_rows(const Rows& matrix, const UnitRows& out, cudaStream_t stream);

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
