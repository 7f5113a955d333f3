// Top-k cosine of pixels in token space: products of all tokens with a block of keys go to a bounded scratch, which
// stays in the last-level cache; a warp a pixel combines them and keeps the k best. The pixel's own norm does not
// change the order.
#include "fma_tile.h"
#include "listed.h"
#include "norms.h"
#include "ranks.h"

namespace cfr::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kSteps = 8;                      // candidates of a lane at a time, 32 keys apart
constexpr int64_t kScratchFloats = 4ll << 20;  // aimed at: 16 MiB of products

// product [tokens, width]: tokens times normalised keys [begin, begin + width) ∩ keys.
__global__ void __launch_bounds__(kTileThreads, 2)
    multiply(Rows tokens, Rows keys, const float* key_scale, int64_t begin, int64_t width, unsigned key_tiles,
             float* product) {
  __shared__ __align__(16) Panels panels;
  __shared__ float scale[kTileRight];
  const int64_t row = static_cast<int64_t>(blockIdx.x / key_tiles) * kTileLeft;
  const int64_t column = static_cast<int64_t>(blockIdx.x % key_tiles) * kTileRight;
  const int64_t key = begin + column + threadIdx.x;
  scale[threadIdx.x] = key < keys.rows ? key_scale[key] : 0.0f;  // read behind the first barrier
  Sums sums;
  Piece<kTileLeft> left;
  Piece<kTileRight> right;
  left.read(tokens, row, 0);
  right.read(keys, begin + column, 0);
  for (int64_t col = 0; col < tokens.cols; col += kTileDepth) {
    __syncthreads();  // all have multiplied what the panels held
    left.write(panels.left);
    right.write(panels.right, scale);
    __syncthreads();
    if (col + kTileDepth < tokens.cols) {
      left.read(tokens, row, col + kTileDepth);
      right.read(keys, begin + column, col + kTileDepth);
    }
    sums.add(panels);
  }
  for (int i = 0; i < 8; ++i)
    for (int j = 0; j < 8; ++j) {
      const int64_t r = row + Sums::row(i), c = column + Sums::column(j);
      if (r < tokens.rows && c < width) product[r * width + c] = sums.value[i][j];
    }
}

// Goes on with the lists of the listed pixels, `best` [list.size, k] and `index`, over keys [begin, begin + count).
__global__ void __launch_bounds__(32 * kWarps)
    search(Interpolation all, Listed list, const float* product, int64_t width, int64_t begin, int64_t count, int k,
           float* best, int64_t* index) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= list.size) return;
  const int lane = threadIdx.x % 32;
  const bool listed = lane < k;
  if (row >= real_rows(list)) {
    if (listed) index[row * k + lane] = 0;
    return;
  }
  uint64_t rank = kNothing;
  if (listed && begin > 0) rank = rank_of(best[row * k + lane], static_cast<int>(index[row * k + lane]));
  const int64_t pixel = listed_row(list, row);
  const int64_t entry = all.offset[pixel], end = all.offset[pixel + 1];
  for (int64_t first = 0; first < count; first += 32 * kSteps) {
    float candidate[kSteps] = {};
    for (int64_t j = entry; j < end; ++j) {
      const float* from = product + all.source[j] * width + first + lane;
      const float factor = all.weight[j];
      for (int step = 0; step < kSteps; ++step)
        if (first + 32 * step + lane < count) candidate[step] = fmaf(from[32 * step], factor, candidate[step]);
    }
    const uint64_t worst = __shfl_sync(kAll, rank, k - 1);
    const float last = value_of(worst);
    bool open = worst == kNothing;
    for (int step = 0; step < kSteps; ++step) open = open || !(candidate[step] <= last);
    if (!__any_sync(kAll, open)) continue;  // seldom passed once the list is full of good keys
    for (int step = 0; step < kSteps; ++step) {
      const int64_t key = first + 32 * step + lane;
      offer(key < count ? rank_of(candidate[step], static_cast<int>(begin + key)) : kNothing, k, rank);
    }
  }
  if (listed) {
    best[row * k + lane] = value_of(rank);
    index[row * k + lane] = index_of(rank);
  }
}

}  // namespace

int64_t topk_interpolated_width(int64_t tokens, int64_t keys) {
  const int64_t wanted = kScratchFloats / max(int64_t(1), tokens) / kTileRight * kTileRight;
  return min(keys, max(int64_t(kTileRight), wanted));
}

void topk_interpolated(const Rows& tokens, const Interpolation& entries, const Listed& list, const Rows& keys,
                       int64_t k, float* key_scale, float* product, float* best, int64_t* index, int device,
                       void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t width = topk_interpolated_width(tokens.rows, keys.rows);
  CFR_LAUNCH((inverse_norms<kWarps>), blocks_for(keys.rows, kWarps), 32 * kWarps, 0, on, keys, key_scale);
  check(cudaGetLastError(), "topk_interpolated: norms of the keys");
  for (int64_t begin = 0; begin < keys.rows; begin += width) {
    const int64_t count = min(width, keys.rows - begin);
    const unsigned token_tiles = blocks_for(tokens.rows, kTileLeft), key_tiles = blocks_for(count, kTileRight);
    if (tokens.rows > 0) {
      CFR_LAUNCH(multiply, token_tiles * key_tiles, kTileThreads, 0, on, tokens, keys, key_scale, begin, width,
                 key_tiles, product);
      check(cudaGetLastError(), "topk_interpolated: products");
    }
    CFR_LAUNCH(search, blocks_for(list.size, kWarps), 32 * kWarps, 0, on, entries, list, product, width, begin, count,
               static_cast<int>(k), best, index);
    check(cudaGetLastError(), "topk_interpolated: search");
  }
}

}  // namespace cfr::cuda
