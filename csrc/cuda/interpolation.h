// One pixel's features from its tokens, in the registers of a warp.
#pragma once

#include "../kernels.h"
#include "warp.h"

namespace cfr::cuda {

template <int kWidth>
__device__ void load(const float* from, float (&to)[kWidth]) {
  static_assert(kWidth == 1 || kWidth == 4, "one float or four aligned ones");
  if constexpr (kWidth == 4) {
    const float4 value = *reinterpret_cast<const float4*>(from);
    to[0] = value.x, to[1] = value.y, to[2] = value.z, to[3] = value.w;
  } else {
    to[0] = *from;
  }
}

// The same for what is read once: it shall not drive the tokens out of the cache.
template <int kWidth>
__device__ void load_once(const float* from, float (&to)[kWidth]) {
  if constexpr (kWidth == 4) {
    const float4 value = __ldcs(reinterpret_cast<const float4*>(from));
    to[0] = value.x, to[1] = value.y, to[2] = value.z, to[3] = value.w;
  } else {
    to[0] = __ldcs(from);
  }
}

template <int kWidth>
__device__ void store_once(float* to, const float (&value)[kWidth]) {
  if constexpr (kWidth == 4)
    __stcs(reinterpret_cast<float4*>(to), make_float4(value[0], value[1], value[2], value[3]));
  else
    __stcs(to, value[0]);
}

// Whether rows can be read four floats at a time.
inline bool aligned_rows(const Rows& matrix) {
  return matrix.cols % 4 == 0 && matrix.stride % 4 == 0 && reinterpret_cast<uintptr_t>(matrix.data) % 16 == 0;
}

// The entries of one pixel; of the first 32, lane i holds the i-th.
struct PixelEntries {
  const int64_t* source;
  const float* weight;
  int count, row;  // fewer than 2^31 entries a pixel, and tokens
  float factor;

  // None of a pixel that is not `real`.
  __device__ PixelEntries(const Interpolation& all, int64_t pixel, bool real = true) : row(0), factor(0) {
    const int64_t begin = real ? all.offset[pixel] : 0;
    count = real ? static_cast<int>(all.offset[pixel + 1] - begin) : 0;
    source = all.source + begin;
    weight = all.weight + begin;
    fetch(0);
  }

  __device__ PixelEntries(const int64_t* sources, const float* weights, int count)
      : source(sources), weight(weights), count(count), row(0), factor(0) {
    fetch(0);
  }

  __device__ void fetch(int base) {
    const int entry = base + static_cast<int>(threadIdx.x) % 32;
    if (entry < count) row = static_cast<int>(source[entry]), factor = weight[entry];
  }
};

// Columns [first, first + kColumns) of one row (of fewer than 2^31): piece i of a lane is kWidth neighbours.
template <int kWidth, int kPieces>
struct Window {
  static constexpr int kColumns = 32 * kWidth * kPieces;
  float value[kPieces][kWidth];

  // Of this lane's first piece; the others follow 32 · kWidth apart, `ahead` columns are left.
  __device__ static int column(int first) { return first + static_cast<int>(threadIdx.x) % 32 * kWidth; }
  __device__ static bool inside(int piece, int ahead) { return piece * 32 * kWidth < ahead; }

  // Zeros where the row has ended.
  __device__ void read(const float* row, int cols, int first) {
    const float* from = row + column(first);
    const int ahead = cols - column(first);
    for (int i = 0; i < kPieces; ++i) {
      for (int e = 0; e < kWidth; ++e) value[i][e] = 0;
      if (inside(i, ahead)) load_once(from + i * 32 * kWidth, value[i]);
    }
  }

  // Σ_j weight[j] · tokens[source[j]], in the entries' order. By a whole warp.
  __device__ void interpolate(const Rows& tokens, PixelEntries& entries, int first) {
    const int ahead = static_cast<int>(tokens.cols) - column(first);
    for (int i = 0; i < kPieces; ++i)
      for (int e = 0; e < kWidth; ++e) value[i][e] = 0;
    for (int base = 0; base < entries.count; base += 32) {
      if (entries.count > 32) entries.fetch(base);
      const int here = min(32, entries.count - base);
      for (int j = 0; j < here; ++j) {
        const int64_t source = __shfl_sync(kAll, entries.row, j);
        const float factor = __shfl_sync(kAll, entries.factor, j);
        const float* token = tokens.data + source * tokens.stride + column(first);
        for (int i = 0; i < kPieces; ++i)
          if (inside(i, ahead)) {
            float part[kWidth];
            load(token + i * 32 * kWidth, part);
            for (int e = 0; e < kWidth; ++e) value[i][e] = fmaf(part[e], factor, value[i][e]);
          }
      }
    }
  }

  __device__ void write(float* row, int cols, int first) const {
    for (int i = 0; i < kPieces; ++i)
      if (inside(i, cols - column(first))) store_once(row + column(first) + i * 32 * kWidth, value[i]);
  }
};

}  // namespace cfr::cuda
