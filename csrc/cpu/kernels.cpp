// The instruction-set variants of the innermost loops, and the choice among them at run time.
#include <atomic>

#include "gemm.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// GCC keeps an array of sums in registers only when every loop over it is unrolled early.
#define CFR_UNROLL _Pragma("GCC unroll 8")

namespace cfr::cpu {
namespace {

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

constexpr Kernels kernels = {"portable", kLeft, kRight, multiply, first_above};

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

constexpr Kernels kernels = {"avx2", kLeft, kRight, multiply, first_above};

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
