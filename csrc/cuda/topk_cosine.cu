// Top-k cosine without the N × M matrix: each block owns 64 queries, walks over all keys in tiles of 64 and
// keeps the k best per query in shared memory. Every similarity is one fp32 chain over the columns, so equal keys tie
// exactly, and keys are visited in ascending order, so ties go to the lower index.
#include <cstdint>

#include "launch.h"
#include "norms.h"
#include "topk_list.h"

namespace cfr::cuda {
namespace {

constexpr int kTile = 64;      // queries and keys per tile
constexpr int kDepth = 16;     // columns staged in shared memory at a time
constexpr int kThreads = 256;  // each computes 4 × 4 similarities
constexpr int kWarps = kThreads / 32;

// Loads a [kTile, kDepth] piece of normalised rows, transposed; zeros outside the matrix.
__device__ void stage(const Rows& matrix, const float* scale, int64_t row, int64_t col,
                      float (*out)[kTile + 4]) {
  for (int item = threadIdx.x; item < kTile * kDepth; item += kThreads) {
    const int r = item / kDepth, c = item % kDepth;
    const bool inside = row + r < matrix.rows && col + c < matrix.cols;
    out[c][r] = inside ? matrix.data[(row + r) * matrix.stride + col + c] * scale[row + r] : 0.0f;
  }
}

__global__ void __launch_bounds__(kThreads)
    search(Rows query, Rows keys, int k, const float* query_scale, const float* key_scale, float* similarity,
           int64_t* index) {
  __shared__ float left[kDepth][kTile + 4], right[kDepth][kTile + 4], product[kTile][kTile + 1];
  __shared__ float best[kTile][kMaxTopk];
  __shared__ int best_index[kTile][kMaxTopk];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTile;

  for (int r = warp; r < kTile; r += kWarps) {
    best[r][lane] = -INFINITY;
    best_index[r][lane] = 0;
  }
  for (int64_t first = 0; first < keys.rows; first += kTile) {
    float sum[4][4] = {};
    for (int64_t col = 0; col < query.cols; col += kDepth) {
      stage(query, query_scale, row, col, left);
      stage(keys, key_scale, first, col, right);
      __syncthreads();
      for (int d = 0; d < kDepth; ++d)
        for (int i = 0; i < 4; ++i)
          for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(left[d][4 * y + i], right[d][4 * x + j], sum[i][j]);
      __syncthreads();
    }
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) product[4 * y + i][4 * x + j] = sum[i][j];
    __syncthreads();
    for (int r = warp; r < kTile; r += kWarps) {
      float value = best[r][lane];
      int place = best_index[r][lane];
      for (int part = 0; part < kTile; part += 32)
        offer(product[r][part + lane], first + part + lane < keys.rows, static_cast<int>(first) + part, k, value,
              place);
      best[r][lane] = value;
      best_index[r][lane] = place;
    }
    __syncthreads();
  }
  for (int r = warp; r < kTile; r += kWarps)
    if (row + r < query.rows && lane < k) {
      similarity[(row + r) * k + lane] = best[r][lane];
      index[(row + r) * k + lane] = best_index[r][lane];
    }
}

}  // namespace

void topk_cosine(const Rows& query, const Rows& keys, int64_t k, float* inverse_norm, float* similarity,
                 int64_t* index, int device, void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  float* key_scale = inverse_norm + query.rows;
  CFR_LAUNCH((inverse_norms<kWarps>), blocks_for(query.rows, kWarps), kThreads, 0, on, query, inverse_norm);
  check(cudaGetLastError(), "topk_cosine: norms of the queries");
  CFR_LAUNCH((inverse_norms<kWarps>), blocks_for(keys.rows, kWarps), kThreads, 0, on, keys, key_scale);
  check(cudaGetLastError(), "topk_cosine: norms of the keys");
  CFR_LAUNCH(search, blocks_for(query.rows, kTile), kThreads, 0, on, query, keys, static_cast<int>(k), inverse_norm,
             key_scale, similarity, index);
  check(cudaGetLastError(), "topk_cosine: search");
}

}  // namespace cfr::cuda
