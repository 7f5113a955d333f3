// Softmax attention over a whole bank without the N × M matrix (online softmax, Milakov & Gimelshein 2018; Dao et
// al. 2022).
//
// A block owns 64 queries, a slice of the value columns and a part of the bank, and walks over its keys in tiles of
// 64: logits by fp32 multiply-adds, their exponentials to shared memory, and from there times the values into
// registers. Slices compute the logits anew: at 128 columns of keys and 768 of values, three slices of 256, that is
// 29 % more work, but 64 sums a thread leave room for two blocks on a multiprocessor, which hide each other's
// barriers. Keys and values pass in pieces, so no width is too large. Where queries are few, parts of the bank go to
// different blocks, and a second kernel merges their sums in ascending order of part.
//
// Products are in fp32. Tensor cores could take them over as three tf32 products each, which keeps nearly all digits.
#include <algorithm>
#include <cfloat>

#include "launch.h"
#include "vectors.h"
#include "warp.h"

namespace cfr::cuda {
namespace {

constexpr int kQueries = 64, kKeys = 64;  // of a tile
constexpr int kDepth = 16;                // columns of keys staged in shared memory at a time
constexpr int kThreads = 256;             // each computes 4 × 4 logits, and 8 queries' sums of 4 · kGroups columns
constexpr int kMergeThreads = 128;
constexpr int kMaxParts = 256;
constexpr int64_t kBlocks = 2048;    // enough that the last wave of blocks on a large device is a small share
constexpr int64_t kTilesOfPart = 4;  // at least, so that a part is worth its merge

// Rows of values staged at a time: 2,048 numbers, two float4 a thread.
template <int kGroups>
constexpr int kRows = 16 / kGroups;

// Two buffers of each kind: one is filled while the other is read.
template <int kGroups>
struct Shared {
  float query[2][kDepth][kQueries + 4], key[2][kDepth][kKeys + 4];
  float weight[kKeys][kQueries + 4];
  float value[2][kRows<kGroups>][128 * kGroups];
  float highest[kQueries], total[kQueries], correction[kQueries];  // of the softmax up to here
};

struct Bank {
  Rows query, keys, values;
  bool aligned_query, aligned_keys, aligned_values;
  float scale;
};

// What one part of the bank leaves for the merge: sums [parts, N, Dv], highest and total [parts, N].
struct Parts {
  float *sums, *highest, *total;
};

// One thread's share of a piece of 64 rows by kDepth columns: four columns, stored transposed.
__device__ inline void store_transposed(const float4& x, float (*out)[kQueries + 4]) {
  const int row = threadIdx.x / 4, col = threadIdx.x % 4 * 4;
  out[col][row] = x.x;
  out[col + 1][row] = x.y;
  out[col + 2][row] = x.z;
  out[col + 3][row] = x.w;
}

__device__ inline void read_four(const float* from, float* x) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  x[0] = four.x;
  x[1] = four.y;
  x[2] = four.z;
  x[3] = four.w;
}

// product[i][j] = query 4y + i · key 4x + j of the tile, each one fp32 chain over the columns.
template <int kGroups>
__device__ inline void score(const Bank& bank, int64_t row, int64_t first, Shared<kGroups>& shared,
                             float (&product)[4][4]) {
  const int mine = threadIdx.x / 4, col = threadIdx.x % 4 * 4;
  const int x = threadIdx.x % 16 * 4, y = threadIdx.x / 16 * 4;
  float4 query = read4(bank.query, bank.aligned_query, row + mine, col);
  float4 key = read4(bank.keys, bank.aligned_keys, first + mine, col);
  for (int depth = 0; depth < bank.keys.cols; depth += kDepth) {
    const int at = depth / kDepth % 2;
    // Those who read this buffer last have since passed the barrier of the piece between, or of the values.
    store_transposed(query, shared.query[at]);
    store_transposed(key, shared.key[at]);
    __syncthreads();
    query = read4(bank.query, bank.aligned_query, row + mine, depth + kDepth + col);
    key = read4(bank.keys, bank.aligned_keys, first + mine, depth + kDepth + col);
#pragma unroll 2  // further ahead, registers spill
    for (int d = 0; d < kDepth; ++d) {
      float a[4], b[4];
      read_four(&shared.query[at][d][y], a);
      read_four(&shared.key[at][d][x], b);
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) product[i][j] = fmaf(a[i], b[j], product[i][j]);
    }
  }
}

// The products of a tile become weights relative to the highest logit so far, in shared memory. `highest` starts at
// −FLT_MAX: −∞ less −∞ would be NaN. A NaN is never the highest, but makes the total NaN.
template <int kGroups>
__device__ inline void weigh(const Bank& bank, int64_t first, float (&product)[4][4],
                             Shared<kGroups>& shared) {
  const int x = threadIdx.x % 16 * 4, y = threadIdx.x / 16 * 4;
  for (int i = 0; i < 4; ++i) {
    const float before = shared.highest[y + i];
    float highest = before, total = 0.0f;
    for (int j = 0; j < 4; ++j) {
      product[i][j] = first + x + j < bank.keys.rows ? product[i][j] * bank.scale : -INFINITY;
      highest = product[i][j] > highest ? product[i][j] : highest;
    }
    for (int step = 8; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(kAll, highest, step);
      highest = other > highest ? other : highest;
    }
    for (int j = 0; j < 4; ++j) total += product[i][j] = expf(product[i][j] - highest);
    for (int step = 8; step > 0; step /= 2) total += __shfl_xor_sync(kAll, total, step);
    __syncwarp();  // the sixteen threads of a query have read `before`
    if (x == 0) {
      const float correction = expf(before - highest);
      shared.highest[y + i] = highest;
      shared.total[y + i] = shared.total[y + i] * correction + total;
      shared.correction[y + i] = correction;
    }
  }
  for (int j = 0; j < 4; ++j)
    *reinterpret_cast<float4*>(&shared.weight[x + j][y]) =
        make_float4(product[0][j], product[1][j], product[2][j], product[3][j]);
}

// The queries and columns whose sums a thread keeps: eight queries from `row` on; four columns from `col` + 128 g on
// for every group g.
struct Place {
  int row, col;
  __device__ Place() {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    row = warp % 2 * 32 + lane / 8 * 8;
    col = warp / 2 * 32 + lane % 8 * 4;
  }
};

// Multiplies earlier sums by the correction and adds weights times values.
template <int kGroups>
__device__ inline void add_values(const Bank& bank, int64_t first, int slice, Shared<kGroups>& shared,
                                  float (&sum)[8][4 * kGroups]) {
  constexpr int kFours = 32 * kGroups;  // float4 a row of a piece
  constexpr int kPieces = kKeys / kRows<kGroups>;
  const Place place;
  float4 staged[2];
  const auto fetch = [&](int piece) {
    for (int i = 0; i < 2; ++i) {
      const int item = threadIdx.x + i * kThreads;
      staged[i] = read4(bank.values, bank.aligned_values, first + piece * kRows<kGroups> + item / kFours,
                        slice + item % kFours * 4);
    }
  };
  fetch(0);
  for (int piece = 0; piece < kPieces; ++piece) {
    float(*value)[128 * kGroups] = shared.value[piece % 2];
    for (int i = 0; i < 2; ++i) {
      const int item = threadIdx.x + i * kThreads;
      *reinterpret_cast<float4*>(&value[item / kFours][item % kFours * 4]) = staged[i];
    }
    __syncthreads();  // the first one is for weights and corrections too
    if (piece == 0)
      for (int i = 0; i < 8; ++i) {
        const float correction = shared.correction[place.row + i];
        for (int j = 0; j < 4 * kGroups; ++j) sum[i][j] *= correction;
      }
    if (piece + 1 < kPieces) fetch(piece + 1);
    for (int d = 0; d < kRows<kGroups>; ++d) {
      float weight[8];
      read_four(&shared.weight[piece * kRows<kGroups> + d][place.row], weight);
      read_four(&shared.weight[piece * kRows<kGroups> + d][place.row + 4], weight + 4);
      for (int group = 0; group < kGroups; ++group) {
        float x[4];
        read_four(&value[d][group * 128 + place.col], x);
        for (int i = 0; i < 8; ++i)
          for (int j = 0; j < 4; ++j) sum[i][4 * group + j] = fmaf(weight[i], x[j], sum[i][4 * group + j]);
      }
    }
  }
}

// Grid: blocks of queries, slices of 128 · kGroups columns, parts of the bank. With one part `out` is written, with
// several `parts`.
template <int kGroups>
__global__ void __launch_bounds__(kThreads, 2) attend(Bank bank, Parts parts, float* out) {
  using Memory = Shared<kGroups>;
  CFR_DYNAMIC_SHARED(Memory, memory);
  Memory& shared = *memory;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kQueries;
  const int slice = blockIdx.y * 128 * kGroups;
  const int64_t tiles = (bank.keys.rows + kKeys - 1) / kKeys;
  const int end = static_cast<int>(tiles * (blockIdx.z + 1) / gridDim.z);

  if (threadIdx.x < kQueries) {
    shared.highest[threadIdx.x] = -FLT_MAX;
    shared.total[threadIdx.x] = 0.0f;
  }
  float sum[8][4 * kGroups] = {};
  for (int tile = static_cast<int>(tiles * blockIdx.z / gridDim.z); tile < end; ++tile) {
    const int64_t first = int64_t{tile} * kKeys;
    float product[4][4] = {};
    score(bank, row, first, shared, product);
    __syncthreads();  // the weights of the tile before are read, or the softmax is ready
    weigh(bank, first, product, shared);
    add_values(bank, first, slice, shared, sum);
  }

  // A part has one tile at least, so its last totals have passed a barrier.
  const bool whole = gridDim.z == 1;
  const int64_t start = whole ? 0 : static_cast<int64_t>(blockIdx.z) * bank.query.rows;
  if (!whole && blockIdx.y == 0 && threadIdx.x < kQueries && row + threadIdx.x < bank.query.rows) {
    parts.highest[start + row + threadIdx.x] = shared.highest[threadIdx.x];
    parts.total[start + row + threadIdx.x] = shared.total[threadIdx.x];
  }
  const Place place;
  for (int i = 0; i < 8; ++i) {
    if (row + place.row + i >= bank.query.rows) continue;
    const float total = whole ? shared.total[place.row + i] : 1.0f;
    float* to = (whole ? out : parts.sums) + (start + row + place.row + i) * bank.values.cols;
    for (int group = 0; group < kGroups; ++group)
      for (int j = 0; j < 4; ++j) {
        const int64_t col = slice + group * 128 + place.col + j;
        if (col < bank.values.cols) to[col] = sum[i][4 * group + j] / total;
      }
  }
}

// One block a query: what the parts summed, relative to the highest logit of all.
__global__ void __launch_bounds__(kMergeThreads)
    merge(Parts parts, int count, int64_t queries, int64_t cols, float* out) {
  __shared__ float factor[kMaxParts];
  const int64_t row = blockIdx.x;
  float highest = -FLT_MAX;
  for (int part = 0; part < count; ++part) highest = fmaxf(highest, parts.highest[part * queries + row]);
  for (int part = threadIdx.x; part < count; part += kMergeThreads)
    factor[part] = expf(parts.highest[part * queries + row] - highest);
  __syncthreads();
  float total = 0.0f;
  for (int part = 0; part < count; ++part) total += factor[part] * parts.total[part * queries + row];
  for (int64_t col = threadIdx.x; col < cols; col += kMergeThreads) {
    float sum = 0.0f;
    for (int part = 0; part < count; ++part)
      sum = fmaf(factor[part], parts.sums[(part * queries + row) * cols + col], sum);
    out[row * cols + col] = sum / total;
  }
}

// One group of columns where that holds all of them.
int groups_for(int64_t cols) { return cols <= 128 ? 1 : 2; }

int64_t parts_for(int64_t queries, int64_t keys, int64_t cols) {
  const int64_t blocks = int64_t{blocks_for(queries, kQueries)} * blocks_for(cols, 128 * groups_for(cols));
  const int64_t tiles = blocks_for(keys, kKeys);
  const int64_t wanted = std::min((kBlocks + blocks - 1) / blocks, tiles / kTilesOfPart);
  return std::max<int64_t>(1, std::min<int64_t>(wanted, kMaxParts));
}

template <int kGroups>
void launch(const Bank& bank, const Parts& parts, int64_t count, float* out, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const dim3 grid(blocks_for(bank.query.rows, kQueries), blocks_for(bank.values.cols, 128 * kGroups),
                  static_cast<unsigned>(count));
  constexpr int kBytes = sizeof(Shared<kGroups>);
  check(cudaFuncSetAttribute(attend<kGroups>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
        "bank_attention: shared memory");
  CFR_LAUNCH((attend<kGroups>), grid, kThreads, kBytes, on, bank, parts, out);
  check(cudaGetLastError(), "bank_attention: attend");
}

}  // namespace

int64_t bank_attention_scratch(int64_t queries, int64_t keys, int64_t cols) {
  const int64_t parts = parts_for(queries, keys, cols);
  return parts > 1 ? parts * queries * (cols + 2) : 0;
}

void bank_attention(const Rows& query, const Rows& keys, const Rows& values, float scale, float* scratch, float* out,
                    int device, void* stream) {
  const DeviceGuard guard(device);
  const int64_t count = parts_for(query.rows, keys.rows, values.cols);
  const Bank bank = {query, keys, values, is_aligned(query), is_aligned(keys), is_aligned(values), scale};
  const Parts parts = {scratch + 2 * count * query.rows, scratch, scratch + count * query.rows};
  if (groups_for(values.cols) == 1)
    launch<1>(bank, parts, count, out, stream);
  else
    launch<2>(bank, parts, count, out, stream);
  if (count == 1) return;
  const auto on = static_cast<cudaStream_t>(stream);
  CFR_LAUNCH(merge, blocks_for(query.rows, 1), kMergeThreads, 0, on, parts, static_cast<int>(count), query.rows,
             values.cols, out);
  check(cudaGetLastError(), "bank_attention: merge");
}

}  // namespace cfr::cuda
