// A threshold of cosine distance as one of similarity.
#pragma once

#include <cstdint>
#include <cstring>

namespace cfr {

// The largest similarity s with 1 − s >= threshold in float32, found by bisection over the ordered floats.
inline float largest_outside(float threshold) {
  const auto number = [](int64_t rank) {  // negative floats count down from −0
    const uint32_t bits = rank >= 0 ? uint32_t(rank) : 0x80000000u | uint32_t(-rank);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  };
  constexpr int64_t kInfinity = 0x7f800000;
  int64_t low = -kInfinity, high = kInfinity + 1;
  if (!(1.0f - number(low) >= threshold)) return number(low);
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (1.0f - number(middle) >= threshold ? low : high) = middle;
  }
  return number(low);
}

}  // namespace cfr
