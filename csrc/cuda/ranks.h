// A value and its index as one number: sorting such ranks sorts by value and, where values are equal, by index.
#pragma once

#include <cstdint>

#include "mma.h"
#include "warp.h"

namespace cfr::cuda {

constexpr uint64_t kNothing = 0;    // below every rank
constexpr unsigned kNanRank = ~0u;  // above the bits of every number

// Higher values first, NaN above everything as in torch, then lower indices; -0 equals 0.
__device__ inline uint64_t rank_of(float value, int index) {
  unsigned bits = value == 0.0f ? 0u : __float_as_uint(value);
  bits = isnan(value) ? kNanRank : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(bits) << 32 | ~static_cast<unsigned>(index);
}
__device__ inline int index_of(uint64_t rank) { return static_cast<int>(~static_cast<unsigned>(rank)); }
__device__ inline float value_of(uint64_t rank) {
  const unsigned bits = static_cast<unsigned>(rank >> 32);
  if (rank == kNothing) return -INFINITY;
  return __uint_as_float(bits == kNanRank ? 0x7fffffffu : bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
}

// Offers the ranks that one warp holds, lane by lane, to a list of the k best (at most 32), entry i in lane i.
__device__ inline void offer(uint64_t candidate, int k, uint64_t& entry) {
  const int lane = threadIdx.x % 32;
  const uint64_t last = __shfl_sync(kAll, entry, k - 1);
  unsigned open = __ballot_sync(kAll, candidate > last);
  while (open) {
    const int source = __ffs(open) - 1;
    open &= open - 1;
    const uint64_t entering = __shfl_sync(kAll, candidate, source);
    // Entries that stay in front are a prefix of the list, so their number is the place of the newcomer.
    const int place = __popc(__ballot_sync(kAll, entry > entering));
    const uint64_t shifted = __shfl_up_sync(kAll, entry, 1);
    if (lane > place) entry = shifted;
    if (lane == place) entry = entering;
  }
}

// Sorts one warp's 32 · kEach ranks, highest first; entry 32 r + lane lies in rank[r]. Bitonic network.
template <int kEach>
__device__ void sort_descending(uint64_t (&rank)[kEach]) {
  const int lane = threadIdx.x % 32;
  CFR_UNROLL
  for (int size = 2; size <= 32 * kEach; size *= 2) {
    CFR_UNROLL
    for (int stride = size / 2; stride > 0; stride /= 2) {
      CFR_UNROLL
      for (int r = 0; r < kEach; ++r) {
        const int entry = 32 * r + lane;
        if (stride < 32) {
          const uint64_t other = __shfl_xor_sync(kAll, rank[r], stride);
          const bool want_higher = ((entry & stride) == 0) == ((entry & size) == 0);
          if ((other > rank[r]) == want_higher) rank[r] = other;
        } else if ((entry & stride) == 0) {  // the partner is in the same lane
          const int partner = r + stride / 32;
          const uint64_t a = rank[r], b = rank[partner < kEach ? partner : r];
          const bool swap = (b > a) == ((entry & size) == 0);
          rank[r] = swap ? b : a;
          rank[partner < kEach ? partner : r] = swap ? a : b;
        }
      }
    }
  }
}

// Entry `at` of a sorted list of 32 · kEach ranks, to every lane.
template <int kEach>
__device__ uint64_t entry_at(const uint64_t (&rank)[kEach], int at) {
  uint64_t result = kNothing;
  CFR_UNROLL
  for (int r = 0; r < kEach; ++r) {
    const uint64_t here = __shfl_sync(kAll, rank[r], at % 32);
    if (at / 32 == r) result = here;
  }
  return result;
}

}  // namespace cfr::cuda
