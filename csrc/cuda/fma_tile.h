// A [64, 256] tile of a product A · Bᵀ in fp32: panels in shared memory, 8 × 8 sums a thread, 256 threads. Every sum is
// one chain of multiply-adds over the depth, so equal rows give equal values wherever they lie.
#pragma once

#include "../kernels.h"
#include "launch.h"

namespace cfr::cuda {

constexpr int kTileLeft = 64, kTileRight = 256, kTileDepth = 16, kTileThreads = 256;

// Transposed pieces of both operands; the padding keeps float4 alignment and spreads the columns over the banks.
struct Panels {
  float left[kTileDepth][kTileLeft + 4];
  float right[kTileDepth][kTileRight + 4];
};

// A thread's share of a [kRows, kTileDepth] piece of a matrix on its way to a panel; zeros outside the matrix.
template <int kRows>
struct Piece {
  static constexpr int kItems = kRows * kTileDepth / kTileThreads, kStep = kTileThreads / kTileDepth;
  float value[kItems];

  __device__ static int row(int i) { return static_cast<int>(threadIdx.x) / kTileDepth + i * kStep; }
  __device__ static int column() { return static_cast<int>(threadIdx.x) % kTileDepth; }

  __device__ void read(const Rows& matrix, int64_t first, int64_t col) {
    const int rows = static_cast<int>(min(int64_t(kRows), matrix.rows - first));
    const bool inside = col + column() < matrix.cols;
    const float* from = matrix.data + (first + row(0)) * matrix.stride + col + column();
    for (int i = 0; i < kItems; ++i, from += kStep * matrix.stride)
      value[i] = inside && row(i) < rows ? *from : 0.0f;
  }

  __device__ void write(float (*panel)[kRows + 4]) const {
    for (int i = 0; i < kItems; ++i) panel[column()][row(i)] = value[i];
  }

  // Each row times its scale [kRows].
  __device__ void write(float (*panel)[kRows + 4], const float* scale) const {
    for (int i = 0; i < kItems; ++i) panel[column()][row(i)] = value[i] * scale[row(i)];
  }
};

struct Sums {
  float value[8][8] = {};

  __device__ static int row(int i) { return 8 * (static_cast<int>(threadIdx.x) / 32) + i; }
  // Two runs of four neighbours: a quarter of a warp then reads all banks once.
  __device__ static int column(int j) { return 4 * (static_cast<int>(threadIdx.x) % 32) + j + (j < 4 ? 0 : 124); }

  __device__ void add(const Panels& panels) {
    for (int d = 0; d < kTileDepth; ++d) {
      float a[8], b[8];
      for (int half = 0; half < 2; ++half) {
        const float4 x = *reinterpret_cast<const float4*>(&panels.left[d][row(4 * half)]);
        const float4 y = *reinterpret_cast<const float4*>(&panels.right[d][column(4 * half)]);
        a[4 * half] = x.x, a[4 * half + 1] = x.y, a[4 * half + 2] = x.z, a[4 * half + 3] = x.w;
        b[4 * half] = y.x, b[4 * half + 1] = y.y, b[4 * half + 2] = y.z, b[4 * half + 3] = y.w;
      }
      for (int i = 0; i < 8; ++i)
        for (int j = 0; j < 8; ++j) value[i][j] = fmaf(a[i], b[j], value[i][j]);
    }
  }
};

}  // namespace cfr::cuda
