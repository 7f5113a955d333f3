#include "fixed_point.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "parallel.h"

namespace cfr::cpu {
namespace {

constexpr float kLargest = 32766;         // int16's largest value, less one for the rounding of x · S
constexpr double kLongest = 46300;        // of the integer rows
constexpr float kLowestInverse = 1e-36f;  // longer rows may overflow float32 in a product

int64_t slice_pairs(int64_t cols) { return slice_depth(fixed_depth(cols) / 2); }

float fixed_scale(const float* x, int64_t cols, float inverse_norm) {
  if (!(inverse_norm >= kLowestInverse)) return 0;  // NaN, and infinite elements, whose inverse norm is 0
  constexpr int kLanes = 16;
  float lanes[kLanes] = {}, largest = 0;
  const int64_t whole = cols / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = std::max(lanes[lane], std::fabs(x[i + lane]));
  for (int64_t i = whole; i < cols; ++i) lanes[i - whole] = std::max(lanes[i - whole], std::fabs(x[i]));
  for (const float lane : lanes) largest = std::max(largest, lane);
  const double longest = std::max(1.0, kLongest - std::sqrt(double(cols)) / 2);
  const double unit = double(largest) * inverse_norm;
  return float(longest * unit <= kLargest ? longest : kLargest / unit);
}

// Slice [pairs][width][2] of `width` rows that begin `depth` integers apart.
template <int64_t width>
void interleave(const int16_t* rows, int64_t depth, int64_t pairs, int16_t* out) {
  for (int64_t k = 0; k < pairs; ++k)
    for (int64_t i = 0; i < width; ++i, out += 2) std::memcpy(out, rows + i * depth + 2 * k, 4);
}

void interleave(const int16_t* rows, int64_t depth, int64_t pairs, int64_t width, int16_t* out) {
  switch (width) {  // the widths that there are, so that the loops unroll
    case 4: return interleave<4>(rows, depth, pairs, out);
    case 6: return interleave<6>(rows, depth, pairs, out);
    case 8: return interleave<8>(rows, depth, pairs, out);
    case 16: return interleave<16>(rows, depth, pairs, out);
    default: std::abort();
  }
}

}  // namespace

UnitRows::UnitRows(const Rows& rows) : rows(rows), inverse_norm(rows.rows), scale(rows.rows) {
  constexpr int64_t kChunk = 256;
  parallel_tasks((rows.rows + kChunk - 1) / kChunk, [&](const auto& next) {
    for (int64_t task; (task = next()) >= 0;)
      for (int64_t row = task * kChunk; row < std::min(rows.rows, (task + 1) * kChunk); ++row) {
        inverse_norms(rows, row, 1, &inverse_norm[row]);
        scale[row] = fixed_scale(rows.data + row * rows.stride, rows.cols, inverse_norm[row]);
      }
  });
  lowest_scale = float(kLongest);
  for (int64_t row = 0; row < rows.rows; ++row) {
    if (special(row))
      specials.push_back(row);
    else
      lowest_scale = std::min(lowest_scale, scale[row]);
  }
}

void pack_fixed(const FixedKernels& kernels, const UnitRows& matrix, const Choice& choice, float common,
                int64_t width, int16_t* out, float* residual) {
  const Rows& rows = matrix.rows;
  const int64_t padded = round_up(choice.count, width), depth = fixed_depth(rows.cols), pairs = depth / 2;
  const int64_t deepest = slice_pairs(rows.cols);
  const Aligned<int16_t> panel(width * depth);
  for (int64_t first = 0; first < padded; first += width) {
    for (int64_t i = 0; i < width; ++i) {
      int16_t* integers = panel.get() + i * depth;
      const int64_t row = first + i < choice.count ? choice[first + i] : -1;
      float squares = 0, scale = 1;
      if (row < 0 || matrix.special(row)) {
        std::fill(integers, integers + depth, int16_t(0));
      } else {
        scale = common ? common : matrix.scale[row];
        squares = kernels.round(rows.data + row * rows.stride, rows.cols, matrix.inverse_norm[row] * scale,
                                integers);
        if (depth > rows.cols) integers[rows.cols] = 0;
      }
      if (residual && row >= 0) residual[first + i] = std::sqrt(squares) / scale;
    }
    for (int64_t start = 0; start < pairs; start += deepest) {
      const int64_t slice = std::min(deepest, pairs - start);
      interleave(panel.get() + 2 * start, depth, slice, width, out + 2 * (start * padded + first * slice));
    }
  }
}

void multiply_fixed(const FixedKernels& kernels, const int16_t* a, int64_t a_rows, const int16_t* b,
                    int64_t b_rows, int64_t cols, int32_t* c) {
  const int64_t deepest = slice_pairs(cols), pairs = fixed_depth(cols) / 2;
  if (cols == 0) std::fill(c, c + a_rows * b_rows, 0);
  for (int64_t start = 0; start < pairs; start += deepest) {
    const int64_t slice = std::min(deepest, pairs - start);
    for (int64_t j = 0; j < b_rows; j += kernels.right)
      for (int64_t i = 0; i < a_rows; i += kernels.left)
        kernels.multiply(a + 2 * (start * a_rows + i * slice), b + 2 * (start * b_rows + j * slice), slice,
                         c + i * b_rows + j, b_rows, start > 0);
  }
}

double fixed_error(double residual, double other, double scales, int64_t cols) {
  // Rounding adds: to the residuals, sums of `cols` squares; to the exact similarity, of unit rows that are
  // themselves rounded, chains of at most cols / 8 sums.
  constexpr double kRounding = 6e-8;  // just above 2^-24
  const double wider = 1 + (cols + 100) * kRounding;
  return ((residual + other + residual * other) * wider + (cols / 8 + 40) * kRounding) * scales + 1;
}

int32_t floor_to_int32(double value) {
  return int32_t(std::floor(std::min(std::max(value, double(INT32_MIN)), double(INT32_MAX))));
}

Exact::Exact(const FixedKernels& kernels, const UnitRows& query, const UnitRows& keys)
    : kernels_(kernels), query_(query), keys_(keys), unit_(query.rows.cols), special_(query.rows.cols) {}

void Exact::choose(int64_t query_row) {
  if (query_row == chosen_) return;
  chosen_ = query_row;
  const float *x = query_.rows.data + query_row * query_.rows.stride, scale = query_.inverse_norm[query_row];
  for (int64_t col = 0; col < query_.rows.cols; ++col) unit_.get()[col] = x[col] * scale;
}

void Exact::compare(const Choice& choice, float* out) const {
  const int64_t cols = keys_.rows.cols;
  for (int64_t first = 0; first < choice.count; first += kExactBatch) {
    const int64_t count = std::min(kExactBatch, choice.count - first);
    const float* rows[kExactBatch];
    float products[kExactBatch];
    for (int64_t i = 0; i < kExactBatch; ++i)
      rows[i] = keys_.rows.data + choice[first + std::min(i, count - 1)] * keys_.rows.stride;
    kernels_.dots(unit_.get(), rows, cols, products);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = choice[first + i];
      const float scale = keys_.inverse_norm[row];
      if (keys_.special(row)) {  // its elements may overflow the product unless they are scaled first
        for (int64_t col = 0; col < cols; ++col) special_.get()[col] = rows[i][col] * scale;
        const float* same[kExactBatch] = {special_.get(), special_.get(), special_.get(), special_.get()};
        float repeated[kExactBatch];
        kernels_.dots(unit_.get(), same, cols, repeated);
        out[first + i] = repeated[0];
      } else {
        out[first + i] = products[i] * scale;
      }
    }
  }
}

}  // namespace cfr::cpu
