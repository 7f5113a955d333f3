// The three nearest centres of every point: tiles of centres in shared memory, four threads a point.
#include <cstdint>

#include "../kernels.h"
#include "keys.h"
#include "launch.h"
#include "warp.h"

namespace cfr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 4;  // threads that share a point and take every fourth centre each
constexpr int kPoints = kThreads / kLanes;
constexpr int kTile = 1024;  // centres in shared memory

// Three keys in ascending order. The reference takes minima, so NaN is below every number: its bits become zero and
// all others one more than they are.
struct Nearest {
  Key key[3] = {~Key{0}, ~Key{0}, ~Key{0}};
  float last = NAN;  // the third distance; nothing is at least NaN, so an unfilled list takes all

  __device__ void insert(Key entering) {
    for (Key& mine : key) {
      const Key smaller = entering < mine ? entering : mine;
      entering = entering < mine ? mine : entering;
      mine = smaller;
    }
    last = distance(2);
  }

  __device__ void offer(float squared, unsigned row) {
    if (squared >= last) return;  // later rows lose a tie
    insert(key_of(isnan(squared) ? 0 : __float_as_uint(squared) + 1, row));
  }

  // An empty place is above every number and so reads as NaN, just as NaN itself does.
  __device__ float distance(int place) const {
    const unsigned bits = static_cast<unsigned>(key[place] >> 32);
    return bits == 0 || bits > 0x7f800001u ? NAN : __uint_as_float(bits - 1);
  }
};

__global__ void __launch_bounds__(kThreads) nearest_three(Rows points, Rows centers, int64_t* index, float* weight) {
  __shared__ float4 tile[kTile];
  const int lane = threadIdx.x % kLanes;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kPoints + threadIdx.x / kLanes;
  const bool inside = row < points.rows;
  const Point point = point_at(points.data + (inside ? row : 0) * points.stride);
  Nearest nearest;
  for (int64_t first = 0; first < centers.rows; first += kTile) {
    const int count = static_cast<int>(min(int64_t{kTile}, centers.rows - first));
    __syncthreads();  // all have read the last tile
    for (int at = threadIdx.x; at < count; at += kThreads) {
      const Point center = point_at(centers.data + (first + at) * centers.stride);
      tile[at] = make_float4(center.x, center.y, center.z, 0);
    }
    __syncthreads();
    for (int at = lane; at < count; at += kLanes) {
      const float4 center = tile[at];
      nearest.offer(squared_distance(point, center.x, center.y, center.z), static_cast<unsigned>(first + at));
    }
  }
  for (int step = 1; step < kLanes; step *= 2) {
    Key other[3];
    for (int i = 0; i < 3; ++i) other[i] = __shfl_xor_sync(kAll, nearest.key[i], step);
    for (const Key key : other) nearest.insert(key);
  }
  if (!inside || lane > 0) return;
  float inverse[3];
  for (int i = 0; i < 3; ++i) inverse[i] = 1.0f / (nearest.distance(i) + 1e-8f);
  const float sum = inverse[0] + inverse[1] + inverse[2];
  for (int i = 0; i < 3; ++i) {
    index[3 * row + i] = static_cast<unsigned>(nearest.key[i]);
    weight[3 * row + i] = inverse[i] / sum;
  }
}

}  // namespace

void three_nn(const Rows& points, const Rows& centers, int64_t* index, float* weight, int device, void* stream) {
  const DeviceGuard guard(device);
  CFR_LAUNCH(nearest_three, blocks_for(points.rows, kPoints), kThreads, 0, static_cast<cudaStream_t>(stream), points,
             centers, index, weight);
  check(cudaGetLastError(), "three_nn: search");
}

}  // namespace cfr::cuda
