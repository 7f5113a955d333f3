// The instruction-set variants of the innermost loops, and the choice among them at run time.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "gemm.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// GCC keeps an array of sums in registers only when every loop over it is unrolled early.
#define CFR_UNROLL _Pragma("GCC unroll 8")

namespace cfr::cpu {
namespace {

// Scales to unit length from sums of squares. The differences of nearly equal vectors are formed element by element:
// 2 − 2 cos would cancel.
struct Scales {
  Scales(double a_squares, double b_squares)
      : a(float(1 / std::max(std::sqrt(a_squares), 1e-12))), b(float(1 / std::max(std::sqrt(b_squares), 1e-12))) {}
  float a, b;
};

namespace portable {

typedef float Vector __attribute__((vector_size(16), aligned(4), may_alias));  // four lanes: every target
constexpr int kLeft = 4, kVectors = 2, kRight = 4 * kVectors;

void multiply(const float* a, const float* b, int64_t depth, float* c, int64_t stride, bool add) {
  Vector sum[kLeft][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k, a += kLeft, b += kRight)
    for (int j = 0; j < kVectors; ++j) {
      const Vector right = *reinterpret_cast<const Vector*>(b + 4 * j);
      for (int i = 0; i < kLeft; ++i) sum[i][j] += a[i] * right;
    }
  CFR_UNROLL
  for (int i = 0; i < kLeft; ++i) {
    CFR_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      Vector* out = reinterpret_cast<Vector*>(c + i * stride + 4 * j);
      *out = add ? *out + sum[i][j] : sum[i][j];
    }
  }
}

int64_t first_above(const float* values, int64_t begin, int64_t end, float bound) {
  while (begin < end && values[begin] <= bound) ++begin;
  return begin;
}

float discrepancy(const float* a, const float* b, int64_t size) {
  constexpr int kLanes = 8;
  double a_lanes[kLanes] = {}, b_lanes[kLanes] = {};
  const int64_t whole = size / kLanes * kLanes;
  for (int64_t k = 0; k < whole; k += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) {
      a_lanes[lane] += double(a[k + lane]) * a[k + lane];
      b_lanes[lane] += double(b[k + lane]) * b[k + lane];
    }
  for (int64_t k = whole; k < size; ++k) {
    a_lanes[k - whole] += double(a[k]) * a[k];
    b_lanes[k - whole] += double(b[k]) * b[k];
  }
  double a_sum = 0, b_sum = 0, sum = 0;
  for (const double lane : a_lanes) a_sum += lane;
  for (const double lane : b_lanes) b_sum += lane;
  const Scales scale(a_sum, b_sum);
  float lanes[kLanes] = {};
  for (int64_t k = 0; k < whole; k += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) {
      const float difference = a[k + lane] * scale.a - b[k + lane] * scale.b;
      lanes[lane] += difference * difference;
    }
  for (int64_t k = whole; k < size; ++k) {
    const float difference = a[k] * scale.a - b[k] * scale.b;
    lanes[k - whole] += difference * difference;
  }
  for (const float lane : lanes) sum += lane;
  return float(std::sqrt(sum));
}

constexpr Kernels kernels = {"portable", kLeft, kRight, multiply, first_above, discrepancy};

}  // namespace portable

#if defined(__x86_64__)
namespace avx2 {

// 6 × 16 sums fill twelve of the sixteen registers; two hold the right panel, one the left value.
constexpr int kLeft = 6, kVectors = 2, kRight = 8 * kVectors;

__attribute__((target("avx2,fma"))) void multiply(const float* a, const float* b, int64_t depth, float* c,
                                                  int64_t stride, bool add) {
  __m256 sum[kLeft][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k, a += kLeft, b += kRight) {
    const __m256 right[kVectors] = {_mm256_load_ps(b), _mm256_load_ps(b + 8)};
    for (int i = 0; i < kLeft; ++i) {
      const __m256 left = _mm256_broadcast_ss(a + i);
      for (int j = 0; j < kVectors; ++j) sum[i][j] = _mm256_fmadd_ps(left, right[j], sum[i][j]);
    }
  }
  CFR_UNROLL
  for (int i = 0; i < kLeft; ++i) {
    CFR_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      float* out = c + i * stride + 8 * j;
      _mm256_storeu_ps(out, add ? _mm256_add_ps(_mm256_loadu_ps(out), sum[i][j]) : sum[i][j]);
    }
  }
}

__attribute__((target("avx2,fma"))) int64_t first_above(const float* values, int64_t begin, int64_t end,
                                                        float bound) {
  const __m256 bounds = _mm256_set1_ps(bound);
  for (; begin < end; begin += 8) {
    const __m256 above = _mm256_cmp_ps(_mm256_loadu_ps(values + begin), bounds, _CMP_NLE_UQ);
    if (const int mask = _mm256_movemask_ps(above)) {
      const int64_t found = begin + __builtin_ctz(mask);
      return found < end ? found : end;
    }
  }
  return end;
}

// Adds the squares of eight floats to two times four doubles: floats would overflow on large features.
__attribute__((target("avx2,fma"), always_inline)) inline void add_squares(__m256 x, __m256d* sum) {
  const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
  const __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
  sum[0] = _mm256_fmadd_pd(low, low, sum[0]);
  sum[1] = _mm256_fmadd_pd(high, high, sum[1]);
}

__attribute__((target("avx2,fma"))) double total(__m256d sum) {
  double lanes[4];
  _mm256_storeu_pd(lanes, sum);
  return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

__attribute__((target("avx2,fma"))) float discrepancy(const float* a, const float* b, int64_t size) {
  const int64_t whole = size / 8 * 8;
  __m256d a_squares[2] = {}, b_squares[2] = {};
  for (int64_t k = 0; k < whole; k += 8) {
    add_squares(_mm256_loadu_ps(a + k), a_squares);
    add_squares(_mm256_loadu_ps(b + k), b_squares);
  }
  double a_rest = 0, b_rest = 0, rest = 0;
  for (int64_t k = whole; k < size; ++k) {
    a_rest += double(a[k]) * a[k];
    b_rest += double(b[k]) * b[k];
  }
  const Scales scale(total(_mm256_add_pd(a_squares[0], a_squares[1])) + a_rest,
                     total(_mm256_add_pd(b_squares[0], b_squares[1])) + b_rest);
  const __m256 a_scale = _mm256_set1_ps(scale.a), b_scale = _mm256_set1_ps(scale.b);
  const auto difference = [&](int64_t k) __attribute__((target("avx2,fma"))) {
    return _mm256_sub_ps(_mm256_mul_ps(_mm256_loadu_ps(a + k), a_scale),
                         _mm256_mul_ps(_mm256_loadu_ps(b + k), b_scale));
  };
  __m256 sum[2] = {};
  int64_t k = 0;
  for (; k + 16 <= whole; k += 16) {
    const __m256 first = difference(k), second = difference(k + 8);
    sum[0] = _mm256_fmadd_ps(first, first, sum[0]);
    sum[1] = _mm256_fmadd_ps(second, second, sum[1]);
  }
  if (k < whole) {
    const __m256 last = difference(k);
    sum[0] = _mm256_fmadd_ps(last, last, sum[0]);
  }
  for (k = whole; k < size; ++k) {
    const float last = a[k] * scale.a - b[k] * scale.b;
    rest += double(last) * last;
  }
  float lanes[8];
  _mm256_storeu_ps(lanes, _mm256_add_ps(sum[0], sum[1]));
  for (const float lane : lanes) rest += lane;
  return float(std::sqrt(rest));
}

constexpr Kernels kernels = {"avx2", kLeft, kRight, multiply, first_above, discrepancy};

bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace avx2
#endif

std::vector<const Kernels*> variants() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  if (avx2::supported()) found.push_back(&avx2::kernels);
#endif
  found.push_back(&portable::kernels);
  return found;
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

const Kernels& kernels() {
  if (!chosen) chosen = variants().front();
  return *chosen;
}

std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const Kernels* variant : variants()) names.emplace_back(variant->name);
  return names;
}

bool use_kernels(const std::string& name) {
  for (const Kernels* variant : variants())
    if (variant->name == name) {
      chosen = variant;
      return true;
    }
  return false;
}

}  // namespace cfr::cpu
