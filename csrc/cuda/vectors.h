// Four neighbouring columns of a matrix at once.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../kernels.h"

namespace cfr::cuda {

// Whether every row may be read as whole float4.
inline bool is_aligned(const Rows& matrix) {
  const bool start = reinterpret_cast<uintptr_t>(matrix.data) % sizeof(float4) == 0;
  return start && matrix.stride % 4 == 0 && matrix.cols % 4 == 0;
}

// The columns [col, col + 4) of a row, col a multiple of 4; zeros outside the matrix.
__device__ inline float4 read4(const Rows& matrix, bool aligned, int64_t row, int col) {
  float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const int left = static_cast<int>(matrix.cols) - col;
  if (row >= matrix.rows || left <= 0) return x;
  const float* from = matrix.data + row * matrix.stride + col;
  if (aligned) return *reinterpret_cast<const float4*>(from);
  x.x = from[0];
  if (left > 1) x.y = from[1];
  if (left > 2) x.z = from[2];
  if (left > 3) x.w = from[3];
  return x;
}

// Writes four columns of a row of contiguous rows, those that exist.
__device__ inline void write4(float* data, int64_t cols, bool aligned, int64_t row, int64_t col, const float4& x) {
  float* to = data + row * cols + col;
  if (aligned) {
    if (col < cols) *reinterpret_cast<float4*>(to) = x;
    return;
  }
  if (col < cols) to[0] = x.x;
  if (col + 1 < cols) to[1] = x.y;
  if (col + 2 < cols) to[2] = x.z;
  if (col + 3 < cols) to[3] = x.w;
}

}  // namespace cfr::cuda
