// The rank of every flag: how many flags in front of it are set. Integers only, so any order gives the same answer.
#pragma once

#include "../kernels.h"
#include "launch.h"
#include "warp.h"

namespace cfr::cuda {

constexpr int kRankThreads = 256;
constexpr int kRankSteps = 2;
constexpr int kRankBlock = kRankThreads * kRankSteps;  // flags per block

template <int kThreads>
__global__ void count_flags(const bool* flags, int64_t count, int64_t* in_block) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRankBlock + threadIdx.x;
  int sum = 0;
  for (int step = 0; step < kRankSteps; ++step) {
    const int64_t i = first + step * kThreads;
    sum += __syncthreads_count(i < count && flags[i]);
  }
  if (threadIdx.x == 0) in_block[blockIdx.x] = sum;
}

// Every block adds up the counts of those in front of it: few enough up to some millions of flags.
template <int kThreads>
__global__ void rank_flags(const bool* flags, int64_t count, const int64_t* in_block, int64_t* rank) {
  constexpr int kWarps = kThreads / 32;
  __shared__ int64_t part[kWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int64_t before = 0;
  for (int64_t block = threadIdx.x; block < blockIdx.x; block += kThreads) before += in_block[block];
  before = warp_sum(before);
  if (lane == 0) part[warp] = before;
  __syncthreads();
  before = 0;
  for (int w = 0; w < kWarps; ++w) before += part[w];

  for (int step = 0; step < kRankSteps; ++step) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kRankBlock + step * kThreads + threadIdx.x;
    const unsigned set = __ballot_sync(kAll, i < count && flags[i]);
    __syncthreads();  // all have read what `part` held
    if (lane == 0) part[warp] = __popc(set);
    __syncthreads();
    int64_t here = before;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) here += part[w];
      before += part[w];
    }
    if (i < count) rank[i] = here + __popc(set & ((1u << lane) - 1));
  }
}

// rank [count]; scratch of one number per started kRankBlock flags. count >= 1.
inline void rank(const bool* flags, int64_t count, int64_t* rank, int64_t* scratch, cudaStream_t stream,
                 const char* what) {
  const unsigned blocks = blocks_for(count, kRankBlock);
  CFR_LAUNCH((count_flags<kRankThreads>), blocks, kRankThreads, 0, stream, flags, count, scratch);
  check(cudaGetLastError(), what);
  CFR_LAUNCH((rank_flags<kRankThreads>), blocks, kRankThreads, 0, stream, flags, count, scratch, rank);
  check(cudaGetLastError(), what);
}

}  // namespace cfr::cuda
