// Distances of points, and keys that sort by a distance and then by a row, as one 64-bit integer.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

namespace cfr::cuda {

using Key = unsigned long long;  // the type that CUDA's atomics take

constexpr unsigned kNanBits = 0x7fc00000u;  // above every float that is not negative

// The bits of a number that is not negative, which sort as it does; those of any NaN are the same.
__device__ __forceinline__ unsigned bits_of(float value) {
  return isnan(value) ? kNanBits : __float_as_uint(value);
}

__device__ __forceinline__ Key key_of(unsigned bits, unsigned row) { return Key{bits} << 32 | row; }

// (a − b)² added to `sum`, every step rounded: no fused multiply-add, so ties fall as in plain loops.
__device__ __forceinline__ float add_square(float sum, float a, float b) {
  const float difference = __fsub_rn(a, b);
  return __fadd_rn(sum, __fmul_rn(difference, difference));
}

struct Point {
  float x, y, z;
};

__device__ __forceinline__ Point point_at(const float* at) { return {at[0], at[1], at[2]}; }

__device__ __forceinline__ float squared_distance(const Point& a, float x, float y, float z) {
  const float first = __fsub_rn(a.x, x);
  return add_square(add_square(__fmul_rn(first, first), a.y, y), a.z, z);
}

}  // namespace cfr::cuda
