// The k nearest points of every centre: whatever beats the running k-th goes to a short list of candidates,
// which is cut back to k whenever it is full.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "coordinates.h"
#include "parallel.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kTile = 1024;  // points per tile of distances, which stays in the first-level cache

// A squared distance and its row as one integer that sorts by distance, NaN last, then by row.
uint64_t key_of(float squared, int64_t row) {
  uint32_t bits;
  std::memcpy(&bits, &squared, sizeof bits);
  if (std::isnan(squared)) bits = 0x7fc00000;
  return uint64_t{bits} << 32 | static_cast<uint32_t>(row);
}

float distance_of(uint64_t key) {
  const uint32_t bits = static_cast<uint32_t>(key >> 32);
  float squared;
  std::memcpy(&squared, &bits, sizeof squared);
  return squared;
}

}  // namespace

void knn(const Rows& points, const Rows& centers, int64_t k, int64_t* index) {
  const Coordinates coordinates(points);
  const int64_t limit = 2 * k + 64;
  parallel_tasks(centers.rows, [&](const auto& next) {
    float squared[kTile + kOverread] = {};
    std::vector<uint64_t> candidates(limit + kTile);
    const auto begin = candidates.begin();
    for (int64_t task; (task = next()) >= 0;) {
      int64_t filled = 0;
      bool bounded = false;
      float bound = INFINITY;
      for (int64_t first = 0; first < points.rows; first += kTile) {
        const int64_t count = std::min(kTile, points.rows - first);
        squared_distances(coordinates, first, count, centers.data + task * centers.stride, squared);
        if (!bounded) {
          for (int64_t at = 0; at < count; ++at) candidates[filled++] = key_of(squared[at], first + at);
        } else {
          for (int64_t at = 0; (at = first_below(squared, at, count, bound)) < count; ++at)
            candidates[filled++] = key_of(squared[at], first + at);
        }
        if (filled > limit) {
          std::nth_element(begin, begin + k - 1, begin + filled);
          filled = k;
          bound = distance_of(candidates[k - 1]);  // an equal distance further on comes too late
          bounded = true;
        }
      }
      if (filled > k) std::nth_element(begin, begin + k - 1, begin + filled);
      std::sort(begin, begin + k);
      for (int64_t i = 0; i < k; ++i) index[task * k + i] = static_cast<uint32_t>(candidates[i]);
    }
  });
}

}  // namespace cfr::cpu
