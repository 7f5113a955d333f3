// The k nearest points of every centre, one block each: what beats the running k-th goes to a list in shared memory,
// which is sorted and cut back to k when the next points might not fit. In which order threads write to the list does
// not matter: the k smallest of its keys (distance, then row) are the same.
#include <cstdint>

#include "../kernels.h"
#include "keys.h"
#include "launch.h"
#include "warp.h"

namespace cfr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kStep = 4 * kThreads;  // points between two looks at the list
constexpr int kCapacity = 4096;      // most keys of a list: 32 KiB
static_assert(kMaxNeighbours + kStep == kCapacity, "a step must fit behind k keys");

// Ascending order of keys[0, size), size a power of two; every thread of the block takes part.
__device__ void sort(Key* keys, int size) {
  for (int run = 2; run <= size; run *= 2)
    for (int apart = run / 2; apart > 0; apart /= 2) {
      for (int pair = threadIdx.x; pair < size / 2; pair += kThreads) {
        const int low = 2 * pair - pair % apart, high = low + apart;  // apart is a power of two
        const Key a = keys[low], b = keys[high];
        if ((a > b) == ((low & run) == 0)) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      __syncthreads();
    }
}

__global__ void __launch_bounds__(kThreads) nearest(Rows points, Rows centers, int k, int capacity, int64_t* index) {
  CFR_DYNAMIC_SHARED(Key, keys);
  __shared__ int filled;
  const int lane = threadIdx.x % 32;
  const int64_t row = blockIdx.x;
  const Point center = point_at(centers.data + row * centers.stride);
  if (threadIdx.x == 0) filled = 0;
  __syncthreads();

  unsigned bound = ~0u;  // bits of the k-th distance; an equal one further on comes too late
  for (int64_t first = 0;; first += kStep) {
    // Here nobody writes to the list, and all read the same length of it.
    const int length = filled;
    const bool last = first >= points.rows;
    if (last || length + kStep > capacity || (bound == ~0u && length >= k)) {
      int size = 1;
      while (size < length) size *= 2;
      for (int at = length + threadIdx.x; at < size; at += kThreads) keys[at] = ~Key{0};
      __syncthreads();
      sort(keys, size);
      if (last) break;
      bound = static_cast<unsigned>(keys[k - 1] >> 32);
      if (threadIdx.x == 0) filled = k;
    }
    __syncthreads();
    for (int part = 0; part < kStep; part += kThreads) {
      const int64_t at = first + part + threadIdx.x;
      bool open = at < points.rows;
      unsigned bits = 0;
      if (open) {
        const float* point = points.data + at * points.stride;
        bits = bits_of(squared_distance(center, point[0], point[1], point[2]));
        open = bits < bound;
      }
      const unsigned lanes = __ballot_sync(kAll, open);
      if (lanes == 0) continue;
      int place = 0;
      if (lane == 0) place = atomicAdd(&filled, __popc(lanes));
      place = __shfl_sync(kAll, place, 0) + __popc(lanes & ((1u << lane) - 1));
      if (open) keys[place] = key_of(bits, static_cast<unsigned>(at));
    }
    __syncthreads();
  }
  for (int at = threadIdx.x; at < k; at += kThreads) index[row * k + at] = static_cast<unsigned>(keys[at]);
}

}  // namespace

void knn(const Rows& points, const Rows& centers, int64_t k, int64_t* index, int device, void* stream) {
  const DeviceGuard guard(device);
  int capacity = 2 * kStep;
  while (capacity < k + kStep) capacity *= 2;
  CFR_LAUNCH(nearest, static_cast<unsigned>(centers.rows), kThreads, capacity * sizeof(Key),
             static_cast<cudaStream_t>(stream), points, centers, static_cast<int>(k), capacity, index);
  check(cudaGetLastError(), "knn: search");
}

}  // namespace cfr::cuda
