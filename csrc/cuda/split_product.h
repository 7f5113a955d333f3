// Products of float32 matrices by the tensor cores, nearly to the last bit: a number is the sum of two fp16 numbers,
// x = hi + lo, and a · b = hi·hi + hi·lo + lo·hi. What is left out, and what lo rounds off, is at most 2^-24 of x each.
//
// fp16 has eleven bits like TF32 at twice its rate, but a narrow range: each row is multiplied by a power of two that
// brings its largest number near 2^14. Numbers down to 2^-17 of that keep all 22 bits; below, 2^-39 of it is the step.
// A piece of 128 bytes of a row holds 32 columns, hi before lo, so that what one stage of tiles.h brings to shared
// memory serves all three products.
#pragma once

#include "tile_choice.h"
#include "unit_rows.h"

namespace cfr::cuda {

constexpr int kSplitColumns = 32;      // of a piece
constexpr int kSplitExponent = 14;     // of a row's largest number
constexpr float kSplitOne = 0x1p14f;   // what multiplies numbers of 0 to 1

// Split rows lie in memory as unit rows do. `scale` [padded] undoes a row's power of two; it is NaN where a row holds a
// number that is not finite, and so are all products of that row.
inline UnitRows carve_split_rows(Carver& carver, int64_t rows, int64_t cols, int tile, bool tiled) {
  UnitRows out = {};
  out.tile = tiled ? tile : 0;
  out.padded = round_up(rows, tile);
  out.row_bytes = cols > 0 ? round_up(cols, kSplitColumns) / kSplitColumns * kPieceBytes : kPieceBytes;
  out.data = carver.take<unsigned char>(out.padded * out.row_bytes);
  out.scale = carver.take<float>(out.padded);
  return out;
}

// One split row, for writing; all its columns are to be written, with zeros behind the matrix.
class SplitRow {
 public:
  __device__ SplitRow(const UnitRows& rows, int64_t row) {
    const int64_t in_tile = rows.tile == 0 ? 0 : row % rows.tile;
    start_ = rows.data + (row - in_tile) * rows.row_bytes + in_tile * kPieceBytes;
    step_ = rows.tile == 0 ? kPieceBytes : rows.tile * kPieceBytes;
    swizzle_ = static_cast<int>(in_tile % 8);
  }

  __device__ void put(int64_t col, float value) const {
    const uint16_t high = Float16::round(value);
    *reinterpret_cast<uint16_t*>(place(col, 0)) = high;
    *reinterpret_cast<uint16_t*>(place(col, 4)) = Float16::round(value - Float16::value(high));
  }

  // Columns col, which is a multiple of 4, to col + 3.
  __device__ void put_four(int64_t col, const float (&value)[4]) const {
    unsigned high[2], low[2];
    for (int i = 0; i < 2; ++i) {
      const unsigned first = Float16::round(value[2 * i]), second = Float16::round(value[2 * i + 1]);
      const unsigned rest = Float16::round(value[2 * i] - Float16::value(static_cast<uint16_t>(first)));
      const unsigned last = Float16::round(value[2 * i + 1] - Float16::value(static_cast<uint16_t>(second)));
      high[i] = first | second << 16, low[i] = rest | last << 16;
    }
    *reinterpret_cast<uint2*>(place(col, 0)) = make_uint2(high[0], high[1]);
    *reinterpret_cast<uint2*>(place(col, 4)) = make_uint2(low[0], low[1]);
  }

 private:
  // Chunks of 16 bytes: four of high parts, four of low ones, where UnitRows::byte has them.
  __device__ unsigned char* place(int64_t col, int chunk) const {
    const int in_piece = static_cast<int>(col % kSplitColumns);
    return start_ + col / kSplitColumns * step_ + ((in_piece / 8 + chunk) ^ swizzle_) * 16 + in_piece % 8 * 2;
  }

  unsigned char* start_;
  int64_t step_;
  int swizzle_;
};

// The power of two for a row (or column) whose largest finite number has these bits, and what undoes it.
struct SplitScale {
  float to, back;
  __device__ explicit SplitScale(unsigned largest) {
    const int exponent = max(static_cast<int>(largest >> 23) - 127, -100);  // what is smaller is as good as zero
    to = __uint_as_float(static_cast<unsigned>(127 + kSplitExponent - exponent) << 23);
    back = __uint_as_float(static_cast<unsigned>(127 - kSplitExponent + exponent) << 23);
  }
};

// Bits of the magnitude, which sort as it does; 0x7f800000 and above are not finite.
__device__ __forceinline__ unsigned magnitude(float value) { return __float_as_uint(value) & 0x7fffffffu; }

// Fills `out` from `matrix`; `factor` [rows] (or null) multiplies `scale`.
void split_rows(const Rows& matrix, const float* factor, const UnitRows& out, cudaStream_t stream);

// Codes that sort as numbers do, 0 below them all; NaN has the highest.
constexpr unsigned kNanCode = 0xffffffffu;
__device__ __forceinline__ unsigned code_of(float value) {
  const unsigned bits = __float_as_uint(value);
  return isnan(value) ? kNanCode : bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float number_of(unsigned code) {
  return __uint_as_float(code >> 31 ? code & 0x7fffffffu : ~code);
}

// out[part, row, col] = factor · left row · right row, plus bias[col] where there is one. With `parts` > 1, the rows of
// each operand's parts lie one behind the other, `left.padded / parts` and `right.padded / parts` of them.
struct SplitProduct {
  UnitRows left, right;
  int64_t rows, cols, stride;  // of a part of `out`
  float factor;
  const float* bias;
  const int64_t* count;  // rows from *count on (null: none) are zero
  int64_t before;        // rows that `count` counts before these
  int parts;
  int64_t part_stride;
  float* out;
  unsigned* highest;  // [rows] (or null): codes of the largest of a row, 0 before
};

// The tiles that multiply_split will take, as they decide how rows lie in memory.
TileDevice split_device(int device);

void multiply_split(const TileDevice& device, const SplitProduct& product, cudaStream_t stream, const char* what);

}  // namespace cfr::cuda
