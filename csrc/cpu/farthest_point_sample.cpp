// Greedy k-center selection that looks at a row again only when it may be the farthest one.
//
// Squared distances to the picks so far only fall, so what a row had at its last visit bounds what it has now.
// A pass visits the rows whose bound exceeds the best exact value known, and takes up the picks they missed
// only until they fall behind it. Minima do not depend on the order, so the picks are those of the plain loop.
#include <algorithm>
#include <cmath>
#include <vector>

#include "gemm.h"
#include "parallel.h"
#include "topk_list.h"
#include "variants.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kChunk = 2048;     // rows per task
constexpr int64_t kAlone = 1 << 17;  // differences that one thread computes sooner than it wakes another

typedef float Vector __attribute__((vector_size(32), aligned(4), may_alias));
constexpr int kLanes = 8, kSums = 4;
constexpr float kMargin = 1e-4f;  // far more than the rounding of a sum of squares
constexpr int64_t kCascade = 16;  // steps that one sum takes before it is added to the next level

#define CFR_ADD_SQUARE(sum, at)                                            \
  {                                                                        \
    const Vector difference = *reinterpret_cast<const Vector*>(a + (at)) - \
                              *reinterpret_cast<const Vector*>(b + (at));  \
    const Vector square = difference * difference;                         \
    sum += square;                                                         \
  }

// Σ (a − b)² in the order of torch.sum over contiguous rows and with its roundings: near ties fall as they do
// in the plain loop. Once a part of the sum shows that it will be at least `enough`, that part is returned.
CFR_INLINE float squared_distance(const float* a, const float* b, int64_t cols, float enough) {
  if (cols < kLanes) {
    float sums[kSums] = {};
    const int64_t full = cols / kSums * kSums;
    for (int64_t col = 0; col < cols; ++col) {
      const float difference = a[col] - b[col];
      const float square = difference * difference;
      sums[col < full ? col % kSums : 0] += square;
    }
    return sums[0] + sums[1] + sums[2] + sums[3];
  }
  Vector low[kSums] = {}, high[kSums] = {};
  constexpr int64_t kStep = kLanes * kSums;
  int64_t col = 0;
  for (; col + kCascade * kStep <= cols;) {
    for (int64_t step = 0; step < kCascade; ++step, col += kStep)
      for (int i = 0; i < kSums; ++i) CFR_ADD_SQUARE(low[i], col + i * kLanes)
    for (int i = 0; i < kSums; ++i) {
      high[i] += low[i];
      low[i] = Vector{};
    }
  }
  const int64_t look = col + (cols - col) / 4 / kStep * kStep;
  for (; col < look; col += kStep)
    for (int i = 0; i < kSums; ++i) CFR_ADD_SQUARE(low[i], col + i * kLanes)
  if (look > 0) {
    Vector part = {};
    for (int i = 0; i < kSums; ++i) part += low[i] + high[i];
    const float even = (part[0] + part[4]) + (part[2] + part[6]);
    const float odd = (part[1] + part[5]) + (part[3] + part[7]);
    if ((even + odd) * (1 - kMargin) >= enough) return even + odd;
  }
  for (; col + kStep <= cols; col += kStep)
    for (int i = 0; i < kSums; ++i) CFR_ADD_SQUARE(low[i], col + i * kLanes)
  for (int i = 0; i < kSums; ++i) low[i] += high[i];
  for (; col + kLanes <= cols; col += kLanes) CFR_ADD_SQUARE(low[0], col)
  for (int i = 1; i < kSums; ++i) low[0] += low[i];
  float sum = 0;
  for (; col < cols; ++col) {
    const float difference = a[col] - b[col];
    const float square = difference * difference;
    sum += square;
  }
  for (int lane = 0; lane < kLanes; ++lane) sum += low[0][lane];
  return sum;
}

#undef CFR_ADD_SQUARE

// Takes up picks [*seen, known), rows of `points`, until `anchor` is at most `floor` or NaN; returns it.
CFR_INLINE float visit_body(const Rows& points, const int64_t* picks, int64_t known, int64_t row, float floor,
                            float anchor, int64_t* seen) {
  const float* features = points.data + row * points.stride;
  const float never = std::isinf(floor) ? NAN : 0;  // all of every sum counts: there may be NaN in it
  int64_t next = *seen;
  for (; next < known && anchor > floor; ++next) {
    const float* pick = points.data + picks[next] * points.stride;
    const float squared = squared_distance(features, pick, points.cols, anchor + never);
    if (!(squared >= anchor)) anchor = squared;  // NaN too, as torch.minimum
  }
  *seen = next;
  return anchor;
}

using Visit = float (*)(const Rows&, const int64_t*, int64_t, int64_t, float, float, int64_t*);

float visit_portable(const Rows& points, const int64_t* picks, int64_t known, int64_t row, float floor,
                     float anchor, int64_t* seen) {
  return visit_body(points, picks, known, row, floor, anchor, seen);
}

CFR_AVX2 float visit_avx2(const Rows& points, const int64_t* picks, int64_t known, int64_t row, float floor,
                          float anchor, int64_t* seen) {
  return visit_body(points, picks, known, row, floor, anchor, seen);
}

bool finite(const Rows& points) {
  for (int64_t row = 0; row < points.rows; ++row) {
    const float* x = points.data + row * points.stride;
    float zero = 0;  // any value that is not finite turns it into NaN
    for (int64_t col = 0; col < points.cols; ++col) zero += x[col] * 0.0f;
    if (zero != 0) return false;
  }
  return true;
}

// The outcome of one chunk's pass: its leader and how many distances it took.
struct Leader {
  float value;
  int64_t row;
  int64_t distances;
};

}  // namespace

void farthest_point_sample(const Rows& given, const float* initial, int64_t count, int64_t* index) {
  Rows points = given;
  if (points.cols == 0) points.stride = 0;  // there may be no memory to step over
  const Kernels& kernels = cpu::kernels();
  const Visit visit = avx2_in_use() ? visit_avx2 : visit_portable;
  std::vector<float> anchor(points.rows + kOverread, INFINITY);
  if (initial) std::transform(initial, initial + points.rows, anchor.begin(), [](float x) { return x * x; });
  std::vector<int64_t> seen(points.rows, 0);

  // A distance that is not a number lifts a row to the top; no bound foresees that, so visit all rows then.
  const auto is_nan = [](float x) { return std::isnan(x); };
  const bool all = !finite(points) || std::any_of(anchor.begin(), anchor.end(), is_nan);
  const int64_t chunks = (points.rows + kChunk - 1) / kChunk;
  std::vector<Leader> bests(chunks, {-INFINITY, -1, kChunk});

  int64_t distances = points.rows;  // that the last pass took: a guess of what the next one takes
  for (int64_t known = 0; known < count; ++known) {
    // The leaders of the last pass, brought up to date, tell how high the maximum is at least.
    float least = -INFINITY;
    for (const Leader& best : bests)
      if (!all && best.row >= 0) {
        anchor[best.row] = visit(points, index, known, best.row, -1, anchor[best.row], &seen[best.row]);
        least = std::max(least, anchor[best.row]);
      }
    least = std::nextafter(least, -INFINITY);  // an equal value in a lower row wins

    const int64_t tasks = known == 0 && !initial ? 0 : chunks;
    const auto pass = [&](const auto& next) {
      for (int64_t task; (task = next()) >= 0;) {
        const int64_t first = task * kChunk, end = std::min(first + kChunk, points.rows);
        Leader best{least, -1, 0};
        const auto find = [&](int64_t from) {
          return all ? from : kernels.first_above(anchor.data(), from, end, best.value);
        };
        for (int64_t row = find(first); row < end; row = find(row + 1)) {
          const float floor = all ? -INFINITY : best.value;
          best.distances -= seen[row];
          anchor[row] = visit(points, index, known, row, floor, anchor[row], &seen[row]);
          best.distances += seen[row];
          if (above(anchor[row], best.value)) {
            best.value = anchor[row];
            best.row = row;
          }
        }
        if (best.row < 0) best.row = bests[task].row;  // still a row to begin the next pass with
        bests[task] = best;
      }
    };
    if (distances * points.cols > kAlone) {
      parallel_tasks(tasks, pass);
    } else {
      int64_t task = 0;
      pass([&] { return task < tasks ? task++ : -1; });
    }
    Leader pick{-INFINITY, 0, 0};
    distances = 0;
    for (const Leader& best : bests) {
      if (best.row >= 0 && above(best.value, pick.value)) pick = best;
      distances += best.distances;
    }
    index[known] = pick.row;
  }
}

}  // namespace cfr::cpu
