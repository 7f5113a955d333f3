// Top-k cosine in float32: each block takes 64 listed queries and a share of the keys, in tiles of 64, and keeps the
// best per query in shared memory. Every similarity is the chain of exact_cosine. Few queries share the keys among
// blocks; their lists are then merged, and since a rank contains its index, any order of merging gives the same.
#include "exact_search.h"

#include "ranks.h"

namespace cfr::cuda {
namespace {

constexpr int kTile = kExactTile;
constexpr int kDepth = 16;     // columns staged in shared memory at a time
constexpr int kThreads = 256;  // each computes 4 × 4 similarities
constexpr int kWarps = kThreads / 32;
constexpr int kList = kMaxTopk;

// How the listed queries are spread over the grid.
struct Spread {
  int64_t tiles, shares, key_tiles;
  __device__ Spread(int64_t count, int64_t keys, int64_t blocks) {
    tiles = (count + kTile - 1) / kTile;
    key_tiles = (keys + kTile - 1) / kTile;
    shares = tiles > 0 && tiles < blocks ? min(blocks / tiles, key_tiles) : 1;
  }
};

// Loads a [kTile, kDepth] piece of normalised rows, transposed; zeros outside the matrix.
template <class RowOf>
__device__ void stage(const Rows& matrix, const float* scale, const RowOf& row_of, int64_t col,
                      float (*out)[kTile + 4]) {
  for (int item = threadIdx.x; item < kTile * kDepth; item += kThreads) {
    const int place = item / kDepth, c = item % kDepth;
    const int64_t row = row_of(place);
    const bool inside = row >= 0 && col + c < matrix.cols;
    out[c][place] = inside ? matrix.data[row * matrix.stride + col + c] * scale[row] : 0.0f;
  }
}

__device__ void write(const ExactSearch& task, int64_t row, uint64_t entry) {
  const int lane = threadIdx.x % 32;
  if (lane >= task.k) return;
  task.similarity[row * task.k + lane] = value_of(entry);
  if (task.index) task.index[row * task.k + lane] = index_of(entry);
}

__global__ void __launch_bounds__(kThreads, 2) search(ExactSearch task) {
  __shared__ float left[kDepth][kTile + 4], right[kDepth][kTile + 4], product[kTile][kTile + 1];
  __shared__ uint64_t best[kTile][kList];
  __shared__ int rows[kTile];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  const int64_t count = *task.count;
  const Spread spread(count, task.keys.rows, gridDim.x);

  for (int64_t item = blockIdx.x; item < spread.tiles * spread.shares; item += gridDim.x) {
    const int64_t tile = item / spread.shares, share = item % spread.shares;
    const int64_t begin = spread.key_tiles * share / spread.shares * kTile;
    const int64_t end = min(spread.key_tiles * (share + 1) / spread.shares * kTile, task.keys.rows);
    if (threadIdx.x < kTile)
      rows[threadIdx.x] = tile * kTile + threadIdx.x < count ? task.list[tile * kTile + threadIdx.x] : -1;
    for (int r = warp; r < kTile; r += kWarps) best[r][lane] = kNothing;
    __syncthreads();
    for (int64_t first = begin; first < end; first += kTile) {
      float sum[4][4] = {};
      for (int64_t col = 0; col < task.query.cols; col += kDepth) {
        stage(task.query, task.query_scale, [&](int place) { return int64_t(rows[place]); }, col, left);
        stage(task.keys, task.key_scale, [&](int place) { return first + place < end ? first + place : -1; }, col,
              right);
        __syncthreads();
        for (int d = 0; d < kDepth; ++d)
          for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(left[d][4 * y + i], right[d][4 * x + j], sum[i][j]);
        __syncthreads();
      }
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) product[4 * y + i][4 * x + j] = sum[i][j];
      __syncthreads();
      for (int r = warp; r < kTile && rows[r] >= 0; r += kWarps) {
        uint64_t entry = best[r][lane];
        for (int part = lane; part < kTile; part += 32) {
          const bool inside = first + part < end;
          offer(inside ? rank_of(product[r][part], static_cast<int>(first + part)) : kNothing, task.k, entry);
        }
        best[r][lane] = entry;
      }
      __syncthreads();
    }
    for (int r = warp; r < kTile; r += kWarps) {
      if (spread.shares > 1)
        task.partial[(item * kTile + r) * kList + lane] = best[r][lane];
      else if (rows[r] >= 0)
        write(task, rows[r], best[r][lane]);
    }
    __syncthreads();
  }
}

// One warp a listed query.
__global__ void merge(ExactSearch task, int64_t blocks) {
  const int64_t count = *task.count;
  const Spread spread(count, task.keys.rows, blocks);
  if (spread.shares == 1) return;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32; at < count; at += step) {
    uint64_t rank[2] = {kNothing, kNothing};
    for (int64_t share = 0; share < spread.shares; ++share) {
      const int64_t item = at / kTile * spread.shares + share;
      rank[1] = task.partial[(item * kTile + at % kTile) * kList + threadIdx.x % 32];
      sort_descending(rank);
    }
    write(task, task.list[at], rank[0]);
  }
}

}  // namespace

void exact_search(const ExactSearch& task, int blocks, cudaStream_t stream) {
  CFR_LAUNCH(search, blocks, kThreads, 0, stream, task);
  check(cudaGetLastError(), "exact search");
  CFR_LAUNCH(merge, blocks, kThreads, 0, stream, task, blocks);
  check(cudaGetLastError(), "exact search: merge");
}

}  // namespace cfr::cuda
