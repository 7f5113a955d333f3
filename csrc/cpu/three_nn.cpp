// The three nearest centres of every point: distances tile by tile, and a list that rarely changes.
#include <algorithm>
#include <cmath>

#include "coordinates.h"
#include "parallel.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kChunk = 256;  // points per task
constexpr int64_t kTile = 512;   // centres per tile of distances, which stays in the first-level cache

// The order in which the reference takes minima: NaN below everything.
bool below(float a, float b) { return a < b || (std::isnan(a) && !std::isnan(b)); }

struct Nearest {
  float squared[3] = {};
  int64_t index[3] = {};
  int filled = 0;

  // Keeps ascending order; a value equal to one in the list goes behind it.
  void insert(float value, int64_t row) {
    int at = filled;
    if (filled < 3) ++filled;
    else if (!below(value, squared[--at])) return;
    for (; at > 0 && below(value, squared[at - 1]); --at) {
      squared[at] = squared[at - 1];
      index[at] = index[at - 1];
    }
    squared[at] = value;
    index[at] = row;
  }
};

}  // namespace

void three_nn(const Rows& points, const Rows& centers, int64_t* index, float* weight) {
  const Coordinates coordinates(centers);
  parallel_tasks((points.rows + kChunk - 1) / kChunk, [&](const auto& next) {
    float squared[kTile + kOverread] = {};
    for (int64_t task; (task = next()) >= 0;)
      for (int64_t row = task * kChunk; row < std::min((task + 1) * kChunk, points.rows); ++row) {
        Nearest nearest;
        for (int64_t first = 0; first < centers.rows; first += kTile) {
          const int64_t count = std::min(kTile, centers.rows - first);
          squared_distances(coordinates, first, count, points.data + row * points.stride, squared);
          int64_t at = 0;
          for (; nearest.filled < 3; ++at) nearest.insert(squared[at], first + at);
          while ((at = first_below(squared, at, count, nearest.squared[2])) < count) {
            nearest.insert(squared[at], first + at);
            ++at;
          }
        }
        float inverse[3];
        for (int i = 0; i < 3; ++i) inverse[i] = 1.0f / (nearest.squared[i] + 1e-8f);
        const float sum = inverse[0] + inverse[1] + inverse[2];
        for (int i = 0; i < 3; ++i) {
          index[3 * row + i] = nearest.index[i];
          weight[3 * row + i] = inverse[i] / sum;
        }
      }
  });
}

}  // namespace cfr::cpu
