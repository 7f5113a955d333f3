// Elementary functions on eight floats at a time, for bodies that variants.h compiles twice.
#pragma once

#include <cstdint>

#include "variants.h"

namespace cfr::cpu {

typedef float Floats __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(32), aligned(4), may_alias));
constexpr int64_t kFloats = 8;

CFR_INLINE Floats load(const float* from) { return *reinterpret_cast<const Floats*>(from); }
CFR_INLINE void store(float* to, Floats value) { *reinterpret_cast<Floats*>(to) = value; }

// e^x for x <= 0 to about two units in the last place; below −87 it stays at e^−87. NaN stays NaN.
CFR_INLINE Floats exp_of_negative(Floats x) {
  constexpr float kRound = 12582912.0f;  // 1.5 · 2²³: adding it leaves the nearest integer in the low bits
  const Floats least = Floats{} - 87.0f;
  x = x < least ? least : x;
  const Floats shifted = x * 1.44269504f + kRound;
  const Floats whole = shifted - kRound;
  const Floats rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;  // ln 2 in two parts
  Floats sum = Floats{} + 1.0f / 5040;
  sum = sum * rest + 1.0f / 720;
  sum = sum * rest + 1.0f / 120;
  sum = sum * rest + 1.0f / 24;
  sum = sum * rest + 1.0f / 6;
  sum = sum * rest + 0.5f;
  sum = sum * rest + 1.0f;
  sum = sum * rest + 1.0f;
  const Ints power = (reinterpret_cast<const Ints&>(shifted) - 0x4b400000 + 127) << 23;
  return sum * reinterpret_cast<const Floats&>(power);
}

// x Φ(x), the exact form of GELU (Hendrycks & Gimpel 2016). Φ(−|x|) = t·P(t)·e^(−x²/2) with t = 1 / (1 + |x|/√8);
// P is our own least-squares fit, 6e-9 from Φ.
CFR_INLINE Floats gelu(Floats x) {
  const Floats size = x < 0.0f ? -x : x;
  const Floats t = 1.0f / (1.0f + size * 0.353553391f);
  Floats sum = Floats{} + 0.0293986942f;
  sum = sum * t - 0.109108878f;
  sum = sum * t + 0.0610694286f;
  sum = sum * t + 0.15386064f;
  sum = sum * t + 0.0654101578f;
  sum = sum * t + 0.160852886f;
  sum = sum * t + 0.138517078f;
  const Floats tail = sum * t * exp_of_negative(size * size * -0.5f);
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

}  // namespace cfr::cpu
