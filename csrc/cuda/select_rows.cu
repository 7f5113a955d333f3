// Compaction in the order of the rows: blocks count, one warp adds up, blocks write.
#include "select_rows.h"

#include "../kernels.h"
#include "warp.h"

namespace cfr::cuda {
namespace {

constexpr int kThreads = 256;  // rows a block
constexpr int kWarps = kThreads / 32;

__device__ bool kept(const bool* excluded, const bool* valid, int64_t rows) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  return row < rows && !excluded[row] && (!valid || valid[row]);
}

__global__ void count_rows(const bool* excluded, const bool* valid, int64_t rows, int* starts) {
  const int count = __syncthreads_count(kept(excluded, valid, rows));
  if (threadIdx.x == 0) starts[blockIdx.x] = count;
}

// Each count becomes the sum of those before it. One warp.
__global__ void add_up(int* starts, int64_t blocks, int64_t* total) {
  const int lane = threadIdx.x;
  int before = 0;
  for (int64_t first = 0; first < blocks; first += 32) {
    const int own = first + lane < blocks ? starts[first + lane] : 0;
    int sum = own;
    for (int step = 1; step < 32; step *= 2) {
      const int left = __shfl_up_sync(kAll, sum, step);
      if (lane >= step) sum += left;
    }
    if (first + lane < blocks) starts[first + lane] = before + sum - own;
    before += __shfl_sync(kAll, sum, 31);
  }
  if (lane == 0) *total = before;
}

__global__ void write_rows(const bool* excluded, const bool* valid, int64_t rows, const int* starts,
                           int64_t* index) {
  __shared__ int counts[kWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const bool keep = kept(excluded, valid, rows);
  const unsigned keepers = __ballot_sync(kAll, keep);
  if (lane == 0) counts[warp] = __popc(keepers);
  __syncthreads();
  int at = starts[blockIdx.x] + __popc(keepers & ((1u << lane) - 1));
  for (int before = 0; before < warp; ++before) at += counts[before];
  if (keep) index[at] = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

}  // namespace

int64_t select_blocks(int64_t rows) { return (rows + kThreads - 1) / kThreads; }

void select_rows(const bool* excluded, const bool* valid, int64_t rows, int* starts, int64_t* index, int64_t* count,
                 cudaStream_t stream) {
  check(cudaMemsetAsync(index, 0, rows * sizeof(int64_t), stream), "rows: none");
  const int64_t blocks = select_blocks(rows);
  CFR_LAUNCH(count_rows, blocks_for(rows, kThreads), kThreads, 0, stream, excluded, valid, rows, starts);
  check(cudaGetLastError(), "rows: count");
  CFR_LAUNCH(add_up, 1, 32, 0, stream, starts, blocks, count);
  check(cudaGetLastError(), "rows: add up");
  CFR_LAUNCH(write_rows, blocks_for(rows, kThreads), kThreads, 0, stream, excluded, valid, rows, starts, index);
  check(cudaGetLastError(), "rows: write");
}

int64_t read_number(const int64_t* number, int device, void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  int64_t value = 0;
  check(cudaMemcpyAsync(&value, number, sizeof value, cudaMemcpyDeviceToHost, on), "number: copy");
  check(cudaStreamSynchronize(on), "number: wait");
  return value;
}

}  // namespace cfr::cuda
