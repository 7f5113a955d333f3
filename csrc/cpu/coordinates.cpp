#include "coordinates.h"

#include "variants.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace cfr::cpu {
namespace {

CFR_INLINE void distances_body(const float* __restrict x, const float* __restrict y,
                               const float* __restrict z, int64_t count, const float* center,
                               float* __restrict out) {
  const float center_x = center[0], center_y = center[1], center_z = center[2];
  for (int64_t i = 0; i < count; ++i) {
    const float dx = center_x - x[i], dy = center_y - y[i], dz = center_z - z[i];
    const float xx = dx * dx, yy = dy * dy, zz = dz * dz;
    const float xy = xx + yy;
    out[i] = xy + zz;
  }
}

void distances_portable(const float* x, const float* y, const float* z, int64_t count, const float* center,
                        float* out) {
  distances_body(x, y, z, count, center, out);
}

CFR_AVX2 void distances_avx2(const float* x, const float* y, const float* z, int64_t count,
                             const float* center, float* out) {
  distances_body(x, y, z, count, center, out);
}

int64_t first_below_portable(const float* values, int64_t begin, int64_t end, float bound) {
  while (begin < end && values[begin] >= bound) ++begin;
  return begin;
}

#if defined(__x86_64__)
CFR_AVX2 int64_t first_below_avx2(const float* values, int64_t begin, int64_t end, float bound) {
  const __m256 bounds = _mm256_set1_ps(bound);
  for (; begin < end; begin += 8) {
    const __m256 below = _mm256_cmp_ps(_mm256_loadu_ps(values + begin), bounds, _CMP_NGE_UQ);
    if (const int mask = _mm256_movemask_ps(below)) {
      const int64_t found = begin + __builtin_ctz(mask);
      return found < end ? found : end;
    }
  }
  return end;
}
#endif

}  // namespace

Coordinates::Coordinates(const Rows& points) : count_(points.rows), values_(3 * points.rows) {
  for (int64_t axis = 0; axis < 3; ++axis)
    for (int64_t row = 0; row < count_; ++row)
      values_.get()[axis * count_ + row] = points.data[row * points.stride + axis];
}

void squared_distances(const Coordinates& points, int64_t first, int64_t count, const float* center,
                       float* out) {
  const auto run = avx2_in_use() ? distances_avx2 : distances_portable;
  run(points.axis(0) + first, points.axis(1) + first, points.axis(2) + first, count, center, out);
}

int64_t first_below(const float* values, int64_t begin, int64_t end, float bound) {
#if defined(__x86_64__)
  if (avx2_in_use()) return first_below_avx2(values, begin, end, bound);
#endif
  return first_below_portable(values, begin, end, bound);
}

}  // namespace cfr::cpu
