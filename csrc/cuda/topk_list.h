// A list of the k best held by one warp, entry i in lane i; k is at most 32.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace cfr::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;

// torch's order of values: NaN above everything.
__device__ inline bool above(float a, float b) { return a > b || (isnan(a) && !isnan(b)); }

// Offers the candidates `first` + lane that one warp holds, lane by lane, so that ties keep the lower index where calls
// come in ascending order.
__device__ inline void offer(float candidate, bool inside, int first, int k, float& value, int& index) {
  const int lane = threadIdx.x % 32;
  const float last = __shfl_sync(kAllLanes, value, k - 1);  // by every lane, inside or not
  unsigned open = __ballot_sync(kAllLanes, inside && above(candidate, last));
  while (open) {
    const int source = __ffs(open) - 1;
    open &= open - 1;
    const float entering = __shfl_sync(kAllLanes, candidate, source);
    // Entries that stay in front are a prefix of the list, so their number is the place of the newcomer.
    const int place = __popc(__ballot_sync(kAllLanes, lane < k && !above(entering, value)));
    const float shifted_value = __shfl_up_sync(kAllLanes, value, 1);
    const int shifted_index = __shfl_up_sync(kAllLanes, index, 1);
    if (lane > place) {
      value = shifted_value;
      index = shifted_index;
    } else if (lane == place) {
      value = entering;
      index = first + source;
    }
  }
}

}  // namespace cfr::cuda
