#include "gemm.h"

#include <algorithm>
#include <cmath>

namespace cfr::cpu {

int64_t slice_depth(int64_t cols) {
  constexpr int64_t kDeepest = 384;
  const int64_t slices = std::max<int64_t>(1, (cols + kDeepest - 1) / kDeepest);
  return std::max<int64_t>(1, (cols + slices - 1) / slices);
}

void inverse_norms(const Rows& matrix, int64_t first, int64_t count, float* out) {
  constexpr int kLanes = 8;
  for (int64_t row = 0; row < count; ++row) {
    const float* x = matrix.data + (first + row) * matrix.stride;
    double lanes[kLanes] = {};
    int64_t col = 0;
    for (; col + kLanes <= matrix.cols; col += kLanes)
      for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += double(x[col + lane]) * x[col + lane];
    double sum = 0;
    for (; col < matrix.cols; ++col) sum += double(x[col]) * x[col];
    for (const double lane : lanes) sum += lane;
    out[row] = static_cast<float>(1.0 / std::max(std::sqrt(sum), 1e-12));
  }
}

void pack(const Rows& matrix, const float* scale, int64_t first, int64_t count, int64_t width, float* out) {
  const int64_t deepest = slice_depth(matrix.cols);
  for (int64_t start = 0; start < matrix.cols; start += deepest) {
    const int64_t depth = std::min(deepest, matrix.cols - start);
    for (int64_t row = 0; row < count; row += width) {
      const float* x = matrix.data + (first + row) * matrix.stride + start;
      const int64_t rows = std::min(width, count - row);
      for (int64_t k = 0; k < depth; ++k, out += width) {
        for (int64_t r = 0; r < rows; ++r) out[r] = x[r * matrix.stride + k] * scale[row + r];
        for (int64_t r = rows; r < width; ++r) out[r] = 0;
      }
    }
  }
}

void pack_listed(const Rows& matrix, const float* scale, const int64_t* list, int64_t count, int64_t width,
                 float* out) {
  const int64_t deepest = slice_depth(matrix.cols);
  for (int64_t start = 0; start < matrix.cols; start += deepest) {
    const int64_t depth = std::min(deepest, matrix.cols - start);
    for (int64_t row = 0; row < count; row += width, out += depth * width) {
      const int64_t rows = std::min(width, count - row);
      if (rows < width) std::fill(out, out + depth * width, 0.0f);
      for (int64_t r = 0; r < rows; ++r) {
        const float* x = matrix.data + list[row + r] * matrix.stride + start;
        const float factor = scale[list[row + r]];
        for (int64_t k = 0; k < depth; ++k) out[k * width + r] = x[k] * factor;
      }
    }
  }
}

void multiply(const Kernels& kernels, const float* a, int64_t a_rows, const float* b, int64_t b_rows,
              int64_t cols, float* c) {
  const int64_t deepest = slice_depth(cols);
  if (cols == 0) std::fill(c, c + a_rows * b_rows, 0.0f);
  for (int64_t start = 0; start < cols; start += deepest) {
    const int64_t depth = std::min(deepest, cols - start);
    for (int64_t j = 0; j < b_rows; j += kernels.right)
      for (int64_t i = 0; i < a_rows; i += kernels.left)
        kernels.multiply(a + start * a_rows + i * depth, b + start * b_rows + j * depth, depth,
                         c + i * b_rows + j, b_rows, start > 0);
  }
}

}  // namespace cfr::cpu
