// The instruction-set variants of the loops of fixed_point.h.
#include <cmath>
#include <cstring>

#include "fixed_point.h"
#include "variants.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// GCC keeps an array of sums in registers only when every loop over it is unrolled early.
#define CFR_UNROLL _Pragma("GCC unroll 8")

namespace cfr::cpu {
namespace {

namespace portable {

typedef float Floats __attribute__((vector_size(16), aligned(4), may_alias));  // four lanes: every target
typedef int32_t Integers __attribute__((vector_size(16), aligned(4), may_alias));
typedef int16_t Shorts __attribute__((vector_size(16)));
constexpr int kLeft = 4, kVectors = 2, kRight = 4 * kVectors;

// a[2i] · b[2i] + a[2i + 1] · b[2i + 1] in lane i.
CFR_INLINE Integers add_products(Integers a, Integers b) {
#if defined(__SSE2__)
  return Integers(_mm_madd_epi16(__m128i(a), __m128i(b)));
#else
  const Integers a_low = (a << 16) >> 16, b_low = (b << 16) >> 16;
  return a_low * b_low + (a >> 16) * (b >> 16);
#endif
}

void multiply(const int16_t* a, const int16_t* b, int64_t pairs, int32_t* c, int64_t stride, bool add) {
  Integers sum[kLeft][kVectors] = {};
  for (int64_t k = 0; k < pairs; ++k, a += 2 * kLeft, b += 2 * kRight)
    for (int j = 0; j < kVectors; ++j) {
      const Integers right = *reinterpret_cast<const Integers*>(b + 8 * j);
      for (int i = 0; i < kLeft; ++i) {
        int32_t pair;
        std::memcpy(&pair, a + 2 * i, sizeof pair);
        sum[i][j] += add_products(Integers{pair, pair, pair, pair}, right);
      }
    }
  CFR_UNROLL
  for (int i = 0; i < kLeft; ++i) {
    CFR_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      Integers* out = reinterpret_cast<Integers*>(c + i * stride + 4 * j);
      *out = add ? *out + sum[i][j] : sum[i][j];
    }
  }
}

int64_t first_above(const int32_t* values, int64_t begin, int64_t end, int32_t bound) {
  while (begin < end && values[begin] <= bound) ++begin;
  return begin;
}

float round(const float* x, int64_t cols, float factor, int16_t* out) {
  constexpr float kWhole = 12582912;  // 1.5 · 2^23: adding it leaves no place for a fraction
  constexpr int kLanes = 8;
  float lanes[kLanes] = {}, sum = 0;
  const auto residual = [&](int64_t i) {
    const float value = x[i] * factor, whole = (value + kWhole) - kWhole;
    out[i] = int16_t(whole);
    return value - whole;
  };
  int64_t i = 0;
  for (; i + kLanes <= cols; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) {
      const float rest = residual(i + lane);
      lanes[lane] += rest * rest;
    }
  for (; i < cols; ++i) {
    const float rest = residual(i);
    sum += rest * rest;
  }
  for (const float lane : lanes) sum += lane;
  return sum;
}

void dots(const float* unit, const float* const* keys, int64_t cols, float* out) {
  constexpr int kSums = 4;
  for (int64_t key = 0; key < kExactBatch; ++key) {
    const float* x = keys[key];
    Floats sum[kSums] = {};
    int64_t i = 0;
    for (; i + 4 * kSums <= cols; i += 4 * kSums)
      for (int j = 0; j < kSums; ++j)
        sum[j] += *reinterpret_cast<const Floats*>(unit + i + 4 * j) *
                  *reinterpret_cast<const Floats*>(x + i + 4 * j);
    float rest = 0;
    for (; i < cols; ++i) rest += unit[i] * x[i];
    const Floats all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    out[key] = ((all[0] + all[1]) + (all[2] + all[3])) + rest;
  }
}

constexpr FixedKernels kernels = {kLeft, kRight, multiply, first_above, round, dots};

}  // namespace portable

#if defined(__x86_64__)
#define CFR_AVX2_FMA __attribute__((target("avx2,fma")))
namespace avx2 {

// 6 × 16 sums fill twelve of the sixteen registers, as in float32.
constexpr int kLeft = 6, kVectors = 2, kRight = 8 * kVectors;

CFR_AVX2_FMA void multiply(const int16_t* a, const int16_t* b, int64_t pairs, int32_t* c, int64_t stride,
                           bool add) {
  __m256i sum[kLeft][kVectors] = {};
  for (int64_t k = 0; k < pairs; ++k, a += 2 * kLeft, b += 2 * kRight) {
    const __m256i* from = reinterpret_cast<const __m256i*>(b);
    const __m256i right[kVectors] = {_mm256_load_si256(from), _mm256_load_si256(from + 1)};
    CFR_UNROLL
    for (int i = 0; i < kLeft; ++i) {
      int32_t pair;
      std::memcpy(&pair, a + 2 * i, sizeof pair);
      const __m256i left = _mm256_set1_epi32(pair);
      sum[i][0] = _mm256_add_epi32(sum[i][0], _mm256_madd_epi16(left, right[0]));
      sum[i][1] = _mm256_add_epi32(sum[i][1], _mm256_madd_epi16(left, right[1]));
      // Keeps GCC from doing all rows at once, for which there are no registers.
      asm("" : "+x"(sum[i][0]), "+x"(sum[i][1]));
    }
  }
  CFR_UNROLL
  for (int i = 0; i < kLeft; ++i) {
    CFR_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      __m256i* out = reinterpret_cast<__m256i*>(c + i * stride + 8 * j);
      _mm256_storeu_si256(out, add ? _mm256_add_epi32(_mm256_loadu_si256(out), sum[i][j]) : sum[i][j]);
    }
  }
}

CFR_AVX2_FMA int64_t first_above(const int32_t* values, int64_t begin, int64_t end, int32_t bound) {
  const __m256i bounds = _mm256_set1_epi32(bound);
  for (; begin < end; begin += 8) {
    const __m256i eight = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + begin));
    if (const int mask = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(eight, bounds)))) {
      const int64_t found = begin + __builtin_ctz(mask);
      return found < end ? found : end;
    }
  }
  return end;
}

CFR_AVX2_FMA float total(__m256 sum) {
  float lanes[8];
  _mm256_storeu_ps(lanes, sum);
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// The first `count` of eight lanes, from 0 to 8.
CFR_AVX2_FMA __m256i lanes_below(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int32_t(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

CFR_AVX2_FMA float round(const float* x, int64_t cols, float factor, int16_t* out) {
  const __m256 factors = _mm256_set1_ps(factor);
  __m256 sum[2] = {};
  const auto integers = [&](__m256 values, __m256& squares) CFR_AVX2_FMA {
    const __m256 scaled = _mm256_mul_ps(values, factors);
    const __m256i whole = _mm256_cvtps_epi32(scaled);
    const __m256 rest = _mm256_sub_ps(scaled, _mm256_cvtepi32_ps(whole));
    squares = _mm256_fmadd_ps(rest, rest, squares);
    return whole;
  };
  const auto sixteen = [&](__m256 low, __m256 high, int16_t* to) CFR_AVX2_FMA {
    const __m256i both = _mm256_packs_epi32(integers(low, sum[0]), integers(high, sum[1]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(both, 0xd8));
  };
  int64_t i = 0;
  for (; i + 16 <= cols; i += 16) sixteen(_mm256_loadu_ps(x + i), _mm256_loadu_ps(x + i + 8), out + i);
  if (i < cols) {
    const int64_t low = std::min<int64_t>(8, cols - i), high = cols - i - low;
    const __m256 first = _mm256_maskload_ps(x + i, lanes_below(low));
    int16_t rest[16];
    sixteen(first, high ? _mm256_maskload_ps(x + i + 8, lanes_below(high)) : _mm256_setzero_ps(), rest);
    std::memcpy(out + i, rest, size_t(cols - i) * sizeof *rest);
  }
  return total(_mm256_add_ps(sum[0], sum[1]));
}

// sum[key] += unit[i, i + 8) · keys[key][i, i + 8), of which `load` reads the eight.
template <class Load>
CFR_AVX2_FMA CFR_INLINE void add_products(const float* unit, const float* const* keys, int64_t i,
                                          const Load& load, __m256* sum) {
  const __m256 left = load(unit + i);
  CFR_UNROLL
  for (int key = 0; key < kExactBatch; ++key) sum[key] = _mm256_fmadd_ps(left, load(keys[key] + i), sum[key]);
}

CFR_AVX2_FMA void dots(const float* unit, const float* const* keys, int64_t cols, float* out) {
  const float* const rows[kExactBatch] = {keys[0], keys[1], keys[2], keys[3]};
  const auto whole = [&](const float* x) CFR_AVX2_FMA { return _mm256_loadu_ps(x); };
  __m256 even[kExactBatch] = {}, odd[kExactBatch] = {};
  int64_t i = 0;
  for (; i + 16 <= cols; i += 16) {
    add_products(unit, rows, i, whole, even);
    add_products(unit, rows, i + 8, whole, odd);
  }
  if (i + 8 <= cols) {
    add_products(unit, rows, i, whole, even);
    i += 8;
  }
  if (i < cols) {
    const __m256i mask = lanes_below(cols - i);
    const auto part = [&](const float* x) CFR_AVX2_FMA { return _mm256_maskload_ps(x, mask); };
    add_products(unit, rows, i, part, odd);
  }
  CFR_UNROLL
  for (int key = 0; key < kExactBatch; ++key) out[key] = total(_mm256_add_ps(even[key], odd[key]));
}

constexpr FixedKernels kernels = {kLeft, kRight, multiply, first_above, round, dots};

}  // namespace avx2
#endif

}  // namespace

const FixedKernels& fixed_kernels() {
#if defined(__x86_64__)
  if (avx2_in_use()) return avx2::kernels;
#endif
  return portable::kernels;
}

}  // namespace cfr::cpu
