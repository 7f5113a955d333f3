// Top-k cosine of pixels in token space: products of all tokens with a block of keys go to a bounded scratch, which
// stays in the last-level cache; a warp a pixel combines them and keeps the k best. The products are by tensor cores,
// of split rows (split_product.h); the norms of the keys scale products, not keys. The pixel's own norm does not change
// the order.
#include "listed.h"
#include "norms.h"
#include "ranks.h"
#include "split_product.h"

namespace cfr::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kSteps = 8;                      // candidates of a lane at a time, 32 keys apart
constexpr int64_t kScratchFloats = 4ll << 20;  // aimed at: 16 MiB of products

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

int64_t width_for(int64_t tokens, int64_t keys) {
  const int64_t wanted = kScratchFloats / max(int64_t(1), tokens) / kTileKeys * kTileKeys;
  return min(keys, max(int64_t(kTileKeys), wanted));
}

// Sizes of one call and its scratch memory, carved from `base` (null: only counted).
struct Plan {
  TileDevice device;
  int64_t width;      // keys at a time
  UnitRows left, right;
  float *key_scale, *product, *best;
  int64_t bytes;

  Plan(const Rows& tokens, const Rows& keys, int64_t rows, int64_t k, int index, void* base)
      : device(split_device(index)), width(width_for(tokens.rows, keys.rows)) {
    Carver carver(base);
    left = carve_split_rows(carver, tokens.rows, tokens.cols, kTileQueries, device.wgmma);
    right = carve_split_rows(carver, width, keys.cols, kTileKeys, device.wgmma);
    key_scale = carver.take<float>(keys.rows);
    product = carver.take<float>(tokens.rows * width);
    best = carver.take<float>(rows * k);
    bytes = carver.used();
  }
};

}  // namespace

int64_t topk_interpolated_scratch(const Rows& tokens, const Listed& list, const Rows& keys, int64_t k, int device) {
  return Plan(tokens, keys, list.size, k, device, nullptr).bytes;
}

void topk_interpolated(const Rows& tokens, const Interpolation& entries, const Listed& list, const Rows& keys,
                       int64_t k, void* scratch, int64_t* index, int device, void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  const Plan plan(tokens, keys, list.size, k, device, scratch);
  const int64_t width = plan.width;
  CFR_LAUNCH((inverse_norms<kWarps>), blocks_for(keys.rows, kWarps), 32 * kWarps, 0, on, keys, plan.key_scale);
  check(cudaGetLastError(), "topk_interpolated: norms of the keys");
  split_rows(tokens, nullptr, plan.left, on);
  for (int64_t begin = 0; begin < keys.rows; begin += width) {
    const int64_t count = min(width, keys.rows - begin);
    if (tokens.rows > 0) {
      const Rows block = {keys.data + begin * keys.stride, count, keys.cols, keys.stride};
      split_rows(block, plan.key_scale + begin, plan.right, on);
      multiply_split(plan.device,
                     {plan.left, plan.right, tokens.rows, count, width, 1.0f, nullptr, nullptr, 0, 1, 0, plan.product,
                      nullptr},
                     on, "topk_interpolated: products");
    }
    CFR_LAUNCH(search, blocks_for(list.size, kWarps), 32 * kWarps, 0, on, entries, list, plan.product, width, begin,
               count, static_cast<int>(k), plan.best, index);
    check(cudaGetLastError(), "topk_interpolated: search");
  }
}

}  // namespace cfr::cuda
