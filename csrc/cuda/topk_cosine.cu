// Top-k cosine without the N × M matrix: bfloat16 or TF32 products on the tensor cores choose candidates, float32
// decides.
//
//   unit_rows   both matrices as rounded unit rows with their rounding errors
//   choose      tiles of products; per query, the highest `keep` by product, and a bound on all that was dropped
//   rerank      the candidates' float32 cosines, best first; a query whose k-th best does not lie above the bound of
//               what was dropped by more than the error of the products is put on a list
//   exact       an exhaustive float32 search of the listed queries (near-duplicates, values that are not finite)
//
// Which candidates meet which in a buffer depends on the run, the answer does not: a rank contains its index, dropped
// means not above a threshold that only rises, and every answer is that of the exhaustive float32 search.
#include "exact_search.h"
#include "ranks.h"
#include "tile_choice.h"
#include "unit_rows.h"

namespace cfr::cuda {
namespace {

constexpr int kWarps = kTileThreads / 32;
constexpr int kMostSplits = 64;
constexpr float kMargin = 2.1f;  // errors between a product and the k-th best below which it is out: above 2

// A query's buffer holds 32 · kEach candidates; full, it is sorted and its better half kept.
template <int kEach>
constexpr int kBuffer = 32 * kEach;

struct Search {
  Rows query_rows, key_rows;
  UnitRows query, keys;
  int query_tiles, key_tiles, splits;  // an item is one tile of queries against one split of the keys
  int k, keep;
  uint64_t* buffers;  // [blocks, kTileQueries, 2 keep]
  uint64_t* lists;    // [items, kTileQueries, keep], descending
  float* dropped;     // [items, kTileQueries]: no key outside the list has a higher product
  int* open_count;
  int* open;          // queries for the exhaustive search
};

// A product's threshold of +inf closes its query: it takes no candidates and goes to the exhaustive search.
__device__ float closing(float value) { return isnan(value) ? INFINITY : value; }

// Keeps the best of one query's `count` candidates, sorted; returns the threshold that follows. One warp.
template <int kEach>
__device__ float cut_buffer(uint64_t* buffer, int count, int k, float threshold, float error, uint64_t* out) {
  constexpr int keep = kBuffer<kEach> / 2;
  const int lane = threadIdx.x % 32;
  uint64_t rank[kEach];
  CFR_UNROLL
  for (int r = 0; r < kEach; ++r) rank[r] = 32 * r + lane < count ? buffer[32 * r + lane] : kNothing;
  sort_descending(rank);
  CFR_UNROLL
  for (int r = 0; r < kEach / 2; ++r) out[32 * r + lane] = rank[r];
  const float last = value_of(entry_at(rank, keep - 1)), best = value_of(entry_at(rank, k - 1));
  if (count <= keep) return threshold;
  return closing(isnan(last) ? last : fmaxf(threshold, fmaxf(last, best - kMargin * error)));
}

// The epilogue of a tile: candidates above their query's threshold go to its buffer.
template <int kEach>
struct Choose {
  static constexpr int kCapacity = kBuffer<kEach>;
  const Search& task;
  uint64_t* buffer;
  int* count;
  float* threshold;
  const float* error;

  template <class Sums>
  __device__ __forceinline__ bool operator()(int tile, Sums& sum) {
    const int end = static_cast<int>(task.key_rows.rows);
    for (;;) {
      const int first = anew(tile * kTileKeys);
      bool taken = false, left = false;
      visit_runs(sum, threshold, [&](int r, int row, float limit) {
        if (limit == INFINITY) return;
        visit_above(sum, r, limit, first, end, [&](float& value, int key) {
          const int slot = atomicAdd(&count[row], 1);
          if (slot < kCapacity) {
            buffer[row * kCapacity + slot] = rank_of(value, key);
            value = -INFINITY;  // taken
            taken = true;
          } else {
            left = true;
          }
        });
      });
      if (!__syncthreads_or(taken || left)) return true;
      const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
      constexpr int kShare = kTileQueries / kWarps;
      unsigned full = __ballot_sync(kAll, lane < kShare && count[warp * kShare + lane % kShare] >= kCapacity);
      for (; full; full &= full - 1) {
        const int row = warp * kShare + __ffs(full) - 1;
        uint64_t* const list = buffer + row * kCapacity;
        const float rises = cut_buffer<kEach>(list, kCapacity, task.k, threshold[row], error[row], list);
        if (lane == 0) {
          threshold[row] = rises;
          count[row] = kCapacity / 2;
        }
      }
      if (!__syncthreads_or(left)) return true;
    }
  }
};

template <class Tiles, int kEach>
__global__ void __launch_bounds__(Tiles::kThreads, 1) choose(Search task) {
  __shared__ int count[kTileQueries];
  __shared__ float threshold[kTileQueries], error[kTileQueries];
  CFR_DYNAMIC_SHARED(unsigned char, shared);
  Tiles tiles(shared);
  constexpr int kCapacity = kBuffer<kEach>;
  uint64_t* const buffer = task.buffers + static_cast<int64_t>(blockIdx.x) * kTileQueries * kCapacity;
  const float worst = __uint_as_float(*task.keys.worst);
  for (int item = blockIdx.x; item < task.query_tiles * task.splits; item += gridDim.x) {
    const int tile = item % task.query_tiles, first_row = tile * kTileQueries, split = item / task.query_tiles;
    const int left = static_cast<int>(task.query_rows.rows) - first_row;
    if (threadIdx.x < kTileQueries) {
      const float own = threadIdx.x < left ? task.query.residual[first_row + threadIdx.x] : NAN;
      count[threadIdx.x] = 0;
      threshold[threadIdx.x] = isnan(own) ? INFINITY : -INFINITY;
      error[threadIdx.x] = cosine_error(own, worst, task.query_rows.cols);
    }
    const auto row_at = [first_row](int place) { return first_row + place; };
    Choose<kEach> epilogue{task, buffer, count, threshold, error};
    const auto start = [&](int64_t at) { return static_cast<int>(task.key_tiles * at / task.splits); };
    tiles.walk(task.query, tile, row_at, task.keys, start(split), start(split + 1), epilogue);
    for (int row = threadIdx.x / 32; row < kTileQueries && row < left; row += kWarps) {
      const int64_t list = static_cast<int64_t>(item) * kTileQueries + row;
      const float rises = cut_buffer<kEach>(buffer + row * kCapacity, min(count[row], kCapacity), task.k,
                                            threshold[row], error[row], task.lists + list * (kCapacity / 2));
      if (threadIdx.x % 32 == 0) task.dropped[list] = rises;
    }
    __syncthreads();
  }
}

// One warp a query.
__global__ void rerank(Search task, bool wide, float* similarity, int64_t* index) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= task.query_rows.rows) return;
  uint64_t best[2] = {kNothing, kNothing};
  float dropped = -INFINITY;
  for (int64_t split = 0; split < task.splits; ++split) {
    const int64_t list = (split * task.query_tiles + row / kTileQueries) * kTileQueries + row % kTileQueries;
    const uint64_t* from = task.lists + list * task.keep;
    dropped = fmaxf(dropped, task.dropped[list]);
    uint64_t rank[4] = {best[0], best[1], from[lane], task.keep > 32 ? from[32 + lane] : kNothing};
    if (split > 0) {
      sort_descending(rank);
      dropped = fmaxf(dropped, closing(value_of(__shfl_sync(kAll, rank[2], 0))));
    }
    best[0] = split > 0 ? rank[0] : rank[2];
    best[1] = split > 0 ? rank[1] : rank[3];
  }
  const float worst = __uint_as_float(*task.keys.worst);
  const float error = cosine_error(task.query.residual[row], worst, task.query_rows.cols);
  const float cut = value_of(entry_at(best, task.k - 1)) - kMargin * error;  // below it none is among the k
  const float* own = task.query_rows.data + row * task.query_rows.stride;
  uint64_t exact[2] = {kNothing, kNothing};
  for (int r = 0; r < 2; ++r) {
    if (best[r] == kNothing || value_of(best[r]) < cut) continue;
    const int key = index_of(best[r]);
    const float* other = task.key_rows.data + key * task.key_rows.stride;
    const float value =
        exact_cosine(own, task.query.scale[row], other, task.keys.scale[key], task.query_rows.cols, wide);
    exact[r] = rank_of(value, key);
  }
  __syncwarp();
  sort_descending(exact);
  const float last = value_of(entry_at(exact, task.k - 1));
  const bool sure = dropped == -INFINITY || (dropped < INFINITY && (isnan(last) || dropped + error < last));
  if (!sure) {
    if (lane == 0) task.open[atomicAdd(task.open_count, 1)] = static_cast<int>(row);
  } else if (lane < task.k) {
    similarity[row * task.k + lane] = value_of(exact[0]);
    index[row * task.k + lane] = index_of(exact[0]);
  }
}

// Sizes of one call and its scratch memory, carved from `base` (null: only counted).
struct Plan {
  Search search;
  uint64_t* partial;
  TileDevice tiles;
  int blocks, exact_blocks;
  int64_t scratch;

  Plan(const Rows& query, const Rows& keys, int64_t k, Precision precision, int device, void* base)
      : tiles(device, precision, 3 * kTileQueries * 4) {
    exact_blocks = 2 * tiles.processors;
    search.query_rows = query;
    search.key_rows = keys;
    search.query_tiles = static_cast<int>((query.rows + kTileQueries - 1) / kTileQueries);
    search.key_tiles = static_cast<int>((keys.rows + kTileKeys - 1) / kTileKeys);
    search.k = static_cast<int>(k);
    search.keep = k <= 16 ? 32 : 64;
    search.splits = 1;
    // Fewest splits that keep nine tenths of the processors busy, else the best there is.
    double most = 0;
    const int limit = search.key_tiles < 4 ? 1 : search.key_tiles / 2;
    for (int splits = 1; splits <= limit && splits <= kMostSplits && most < 0.9; ++splits) {
      const int64_t items = int64_t(search.query_tiles) * splits;
      const double busy = double(items) / double(round_up(items, tiles.processors));
      if (busy > most) search.splits = splits;
      if (busy > most) most = busy;
    }
    const int64_t items = int64_t(search.query_tiles) * search.splits;
    blocks = static_cast<int>(items < tiles.processors ? items : tiles.processors);

    Carver carver(base);
    int* counters = carver.take<int>(2);
    search.open_count = counters;
    search.query = carve_unit_rows(carver, precision, query, kTileQueries, tiles.wgmma);
    search.keys = carve_unit_rows(carver, precision, keys, kTileKeys, tiles.wgmma);
    search.keys.worst = reinterpret_cast<unsigned*>(counters + 1);
    search.open = carver.take<int>(query.rows);
    search.buffers = carver.take<uint64_t>(int64_t(blocks) * kTileQueries * 2 * search.keep);
    search.lists = carver.take<uint64_t>(items * kTileQueries * search.keep);
    search.dropped = carver.take<float>(items * kTileQueries);
    partial = carver.take<uint64_t>(exact_search_scratch(exact_blocks));
    scratch = carver.used();
  }
};

template <class Tiles, int kEach>
void launch_choose(const Plan& plan, cudaStream_t stream) {
  const auto kernel = choose<Tiles, kEach>;
  admit<Tiles>(kernel, "topk_cosine: shared memory");
  CFR_LAUNCH(kernel, plan.blocks, kTileThreads, Tiles::kSharedBytes, stream, plan.search);
  check(cudaGetLastError(), "topk_cosine: choose");
}

template <class Tiles>
void launch_choose(const Plan& plan, cudaStream_t stream) {
  if (plan.search.keep == 32)
    launch_choose<Tiles, 2>(plan, stream);
  else
    launch_choose<Tiles, 4>(plan, stream);
}

}  // namespace

int64_t topk_cosine_scratch(const Rows& query, const Rows& keys, int64_t k, Precision precision, int device) {
  return Plan(query, keys, k, precision, device, nullptr).scratch;
}

void topk_cosine(const Rows& query, const Rows& keys, int64_t k, Precision precision, void* scratch,
                 float* similarity, int64_t* index, int device, void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  const Plan plan(query, keys, k, precision, device, scratch);
  const Search& search = plan.search;
  check(cudaMemsetAsync(search.open_count, 0, 2 * sizeof(int), on), "topk_cosine: counters");
  unit_rows(query, search.query, on);
  unit_rows(keys, search.keys, on);
  const auto choose_in = [&](auto use) { launch_choose<typename decltype(use)::Tiles>(plan, on); };
  if (precision == Precision::tf32)
    with_tiles<Tf32>(plan.tiles, choose_in);
  else
    with_tiles<Bfloat16>(plan.tiles, choose_in);
  const bool wide = starts_wide(query) && starts_wide(keys);
  CFR_LAUNCH(rerank, blocks_for(query.rows, kWarps), kTileThreads, 0, on, search, wide, similarity, index);
  check(cudaGetLastError(), "topk_cosine: rerank");
  const ExactSearch exact{query, keys, search.query.scale, search.keys.scale, search.k, search.open,
                          search.open_count, plan.partial, similarity, index};
  exact_search(exact, plan.exact_blocks, on);
}

}  // namespace cfr::cuda
