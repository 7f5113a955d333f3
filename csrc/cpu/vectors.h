// Eight floats as one value, for bodies that variants.h compiles for every processor and for AVX2.
//
// Vectors stay local to a body: passed by value they would need the same registers on both sides.
#pragma once

#include <cstdint>

#include "variants.h"

namespace cfr::cpu {

constexpr int64_t kLanes = 8;
typedef float Floats __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(32), may_alias));

CFR_INLINE const Floats& vector_at(const float* data) { return *reinterpret_cast<const Floats*>(data); }
CFR_INLINE Floats& vector_at(float* data) { return *reinterpret_cast<Floats*>(data); }

CFR_INLINE float total(const Floats& lanes) {
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

CFR_INLINE float dot(const float* a, const float* b, int64_t size) {
  Floats sum[2] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= size; i += 2 * kLanes) {
    sum[0] += vector_at(a + i) * vector_at(b + i);
    sum[1] += vector_at(a + i + kLanes) * vector_at(b + i + kLanes);
  }
  float rest = 0;
  for (; i < size; ++i) rest += a[i] * b[i];
  const Floats both = sum[0] + sum[1];
  return total(both) + rest;
}

// x ← eˣ for x <= 0 or NaN, to 1e-7 relative; what would be below 2^-125 is 0.
//
// eˣ = 2ⁿ eʳ with |r| <= ln 2 / 2, and eʳ = 1 + r + r² p(r), p fitted to a largest relative error of 3e-9.
CFR_INLINE void exp_of_negative(Floats& x) {
  const Floats shift = Floats{} + 12582912.0f;  // 1.5 · 2^23: the sum with it has n in its lowest bits
  const Floats shifted = x * 1.44269504f + shift, n = shifted - shift;
  Floats r = x - n * 0.693359375f;               // ln 2 in two parts: this product is exact
  r += n * 2.12194440e-4f;
  Floats p = r * 0.001381454f + 0.008368745f;
  p = p * r + 0.04166839f;
  p = p * r + 0.16666521f;
  p = p * r + 0.49999994f;
  const Floats mantissa = p * (r * r) + r + 1.0f;
  const Words power = (reinterpret_cast<const Words&>(shifted) + 127u) << 23;
  const Floats result = mantissa * reinterpret_cast<const Floats&>(power);
  x = x < -86.6f ? Floats{} : result;
}

}  // namespace cfr::cpu
