// Greedy k-center selection: one launch per pick, each one pass over all rows.
//
// The end of a launch is the barrier between two picks. It asks for no blocks that are resident together, as a barrier
// inside one long launch would; a CUDA graph captures it; and while the device works on a pick, the host has long
// queued the next ones. The farthest row is the greatest of 64-bit keys (distance, then lower row), so the order in
// which blocks offer theirs does not matter.
#include <algorithm>
#include <cstdint>

#include "../kernels.h"
#include "keys.h"
#include "launch.h"
#include "warp.h"

namespace cfr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerMultiprocessor = 6;
constexpr int64_t kNarrow = 8;  // up to this many columns one thread takes a whole row

// The greatest key is the largest anchor, NaN above all as in torch.argmax, then the lowest row. Zero is below all.
__device__ Key anchor_key(float anchor, int64_t row) {
  return key_of(bits_of(anchor), ~static_cast<unsigned>(row));
}

__device__ int64_t row_of(Key key) { return ~static_cast<unsigned>(key); }

// Raises *slot to the greatest key of the block; every thread takes part.
__device__ void offer(Key key, Key* slot) {
  __shared__ Key best[kThreads / 32];
  for (int step = 16; step > 0; step /= 2) {
    const Key other = __shfl_xor_sync(kAll, key, step);
    key = other > key ? other : key;
  }
  if (threadIdx.x % 32 == 0) best[threadIdx.x / 32] = key;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (const Key other : best) key = other > key ? other : key;
  atomicMax(slot, key);
}

// Squared anchors before the first pick, and that pick.
__global__ void __launch_bounds__(kThreads) start(const float* initial, int64_t rows, float* anchor, Key* slot) {
  Key best = 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; row < rows; row += stride) {
    const float value = initial ? __fmul_rn(initial[row], initial[row]) : INFINITY;
    anchor[row] = value;
    const Key key = anchor_key(value, row);
    best = key > best ? key : best;
  }
  offer(best, slot);
}

__device__ __forceinline__ void add_squares(float& sum, float a, float b) { sum = add_square(sum, a, b); }

__device__ __forceinline__ void add_squares(float4& sum, const float4& a, const float4& b) {
  sum = make_float4(add_square(sum.x, a.x, b.x), add_square(sum.y, a.y, b.y), add_square(sum.z, a.z, b.z),
                    add_square(sum.w, a.w, b.w));
}

__device__ __forceinline__ float total(float sum) { return sum; }

__device__ __forceinline__ float total(const float4& sum) {
  return __fadd_rn(__fadd_rn(sum.x, sum.y), __fadd_rn(sum.z, sum.w));
}

// Takes the pick in slots[0] up into all anchors and offers the farthest row to slots[1]. kLanes threads share a row
// and read it in pieces; every row is summed in the same order, so equal rows stay equal.
template <int kLanes, class Piece>
__global__ void __launch_bounds__(kThreads) pass(Rows points, bool backward, float* anchor, Key* slots) {
  constexpr int kRows = kThreads / kLanes;
  constexpr int kWidth = sizeof(Piece) / sizeof(float);
  const auto pieces_of = [&](int64_t row) {
    return reinterpret_cast<const Piece*>(points.data + row * points.stride);
  };
  const Piece* pick = pieces_of(row_of(slots[0]));
  const int lane = threadIdx.x % kLanes;
  const int pieces = static_cast<int>(points.cols / kWidth);
  const int64_t groups = (points.rows + kRows - 1) / kRows;
  const int64_t stride = backward ? -int64_t{gridDim.x} : int64_t{gridDim.x};
  Key best = 0;
  for (int64_t group = backward ? groups - 1 - blockIdx.x : blockIdx.x; group >= 0 && group < groups; group += stride) {
    const int64_t row = group * kRows + threadIdx.x / kLanes;
    const bool inside = row < points.rows;
    Piece sum = {};
    if (inside) {
      const Piece* features = pieces_of(row);
      for (int at = lane; at < pieces; at += kLanes) add_squares(sum, features[at], __ldg(pick + at));
    }
    float squared = total(sum);
    for (int step = kLanes / 2; step > 0; step /= 2)
      squared = __fadd_rn(squared, __shfl_xor_sync(kAll, squared, step));
    if (inside && lane == 0) {
      float value = anchor[row];
      if (squared < value || isnan(squared)) anchor[row] = value = squared;  // NaN stays, as with torch.minimum
      const Key key = anchor_key(value, row);
      best = key > best ? key : best;
    }
  }
  offer(best, slots + 1);
}

// Keys become the rows they name.
__global__ void decode(int64_t count, Key* slots) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at < count) slots[at] = static_cast<Key>(row_of(slots[at]));
}

template <int kLanes, class Piece>
void passes(const Rows& points, int64_t count, int multiprocessors, float* anchor, Key* slots, cudaStream_t on) {
  const int64_t most = int64_t{multiprocessors} * kBlocksPerMultiprocessor;
  const unsigned blocks = static_cast<unsigned>(std::min(most, int64_t{blocks_for(points.rows, kThreads / kLanes)}));
  for (int64_t step = 0; step + 1 < count; ++step) {
    const bool backward = step % 2 != 0;  // the rows read last, still in the second-level cache, come first
    CFR_LAUNCH((pass<kLanes, Piece>), blocks, kThreads, 0, on, points, backward, anchor, slots + step);
    check(cudaGetLastError(), "farthest_point_sample: pass");
  }
}

}  // namespace

void farthest_point_sample(const Rows& points, const float* initial, int64_t count, float* anchor, int64_t* index,
                           int device, void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  Key* slots = reinterpret_cast<Key*>(index);  // keys until the last launch
  static_assert(sizeof(Key) == sizeof(int64_t), "a key takes the place of an index");
  int multiprocessors = 0;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device),
        "farthest_point_sample: multiprocessors");
  check(cudaMemsetAsync(slots, 0, static_cast<size_t>(count) * sizeof(Key), on), "farthest_point_sample: slots");
  const int64_t most = int64_t{multiprocessors} * kBlocksPerMultiprocessor;
  const unsigned blocks = static_cast<unsigned>(std::min(most, int64_t{blocks_for(points.rows, kThreads)}));
  CFR_LAUNCH(start, blocks, kThreads, 0, on, initial, points.rows, anchor, slots);
  check(cudaGetLastError(), "farthest_point_sample: start");

  const bool wide = points.cols % 4 == 0 && points.stride % 4 == 0 &&
                    reinterpret_cast<uintptr_t>(points.data) % sizeof(float4) == 0;
  if (points.cols <= kNarrow) {
    passes<1, float>(points, count, multiprocessors, anchor, slots, on);
  } else if (wide) {
    passes<8, float4>(points, count, multiprocessors, anchor, slots, on);
  } else {
    passes<32, float>(points, count, multiprocessors, anchor, slots, on);
  }
  CFR_LAUNCH(decode, blocks_for(count, kThreads), kThreads, 0, on, count, slots);
  check(cudaGetLastError(), "farthest_point_sample: decode");
}

}  // namespace cfr::cuda
