// Which queries have no bank row nearer than the threshold: tiles of bfloat16 products that stop early.
//
// A product above the bound by more than its error satisfies its query, one below it by more than that says nothing,
// and the few between are remembered and decided in float32. The bank is met in phases of doubling length; between
// two the queries that are still open are gathered, so that tiles stay full of them, and a tile whose last query is
// satisfied stops. A query with more doubtful rows than are remembered, none of which satisfies it, is searched
// exhaustively. Gathering orders the queries as it happens; what is decided does not depend on it.
#include "../cosine_threshold.h"
#include "exact_search.h"
#include "select_rows.h"
#include "tile_choice.h"
#include "unit_rows.h"
#include "warp.h"

namespace cfr::cuda {
namespace {

constexpr int kDoubtful = 32;  // bank rows remembered a query: one a lane
constexpr int kWarps = kTileThreads / 32;
constexpr int kFirstShare = 64;  // the first phase is at most this part of the bank, or one tile

// Queries of which only the device knows how many there are; null rows: all of them.
struct List {
  int* rows;
  int* count;
};

struct Filter {
  Rows query_rows, bank_rows;
  UnitRows query, bank;
  UnitRows gathered;  // those of listed queries, in the order of the list, where tiles want unit rows tile by tile
  float bound;  // reliable: a similarity above it, or not a number
  const bool* valid;
  bool* reliable;
  int* doubtful_count;  // [query rows], counted on beyond kDoubtful
  int* doubtful;        // [query rows, kDoubtful]
};

// Appends each lane's row where `take`. By whole warps.
__device__ void append(const List& list, bool take, int row) {
  const unsigned takers = __ballot_sync(kAll, take);
  if (takers == 0) return;
  const int lane = threadIdx.x % 32;
  int start = 0;
  if (lane == 0) start = atomicAdd(list.count, __popc(takers));
  start = __shfl_sync(kAll, start, 0);
  if (take) list.rows[start + __popc(takers & ((1u << lane) - 1))] = row;
}

// Those of `from` that are open.
__global__ void gather_open(Filter task, List from, List to) {
  const int64_t count = from.rows ? *from.count : task.query_rows.rows;
  for (int64_t block = int64_t(blockIdx.x) * kTileThreads; block < count; block += int64_t(gridDim.x) * kTileThreads) {
    const int64_t at = block + threadIdx.x;
    const int row = at >= count ? 0 : from.rows ? from.rows[at] : static_cast<int>(at);
    const bool open = at < count && (!task.valid || task.valid[row]) && !task.reliable[row];
    append(to, open, row);
  }
}

__global__ void gather_rows(Filter task, List list) {
  const int64_t count = *list.count, chunks = task.query.row_bytes / 16;
  const int64_t step = int64_t(gridDim.x) * kWarps;
  for (int64_t at = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32; at < count; at += step)
    for (int64_t chunk = threadIdx.x % 32; chunk < chunks; chunk += 32)
      *reinterpret_cast<uint4*>(task.gathered.byte(at, chunk * 16)) =
          *reinterpret_cast<const uint4*>(task.query.byte(list.rows[at], chunk * 16));
}

// The epilogue of a tile.
struct Judge {
  const Filter& task;
  const int* rows;
  int* open;       // queries of the tile that are not satisfied
  int* satisfied;  // by this tile of the bank
  float* doubt;    // below it a product says nothing
  const float* sure;

  template <class Sums>
  __device__ __forceinline__ bool operator()(int tile, Sums& sum) {
    const int first = tile * kTileKeys, end = static_cast<int>(task.bank_rows.rows);
    bool found = false;
    visit_runs(sum, doubt, [&](int r, int place, float limit) {
      if (!open[place]) return;
      bool here = false;
      visit_above(sum, r, sure[place], first, end, [&](float, int) { here = true; });
      if (here) {
        satisfied[place] = 1;
        found = true;
        return;
      }
      const int row = rows[place];
      visit_above(sum, r, limit, first, end, [&](float, int key) {
        if (task.doubtful_count[row] > kDoubtful) return;
        const int slot = atomicAdd(&task.doubtful_count[row], 1);
        if (slot < kDoubtful) task.doubtful[static_cast<int64_t>(row) * kDoubtful + slot] = key;
      });
    });
    if (!__syncthreads_or(found)) return true;
    bool left = false;
    if (threadIdx.x < kTileQueries) {
      if (open[threadIdx.x] && satisfied[threadIdx.x]) {
        open[threadIdx.x] = 0;
        doubt[threadIdx.x] = INFINITY;
        task.reliable[rows[threadIdx.x]] = true;
      }
      left = open[threadIdx.x];
    }
    return __syncthreads_or(left);
  }
};

// Into how many shares `length` bank tiles are cut for each of `tiles` tiles of queries, so that the blocks end about
// together. A block's start on a share costs about half a bank tile. By whole warps.
__device__ int choose_shares(int tiles, int length, int blocks) {
  if (tiles == 0 || tiles >= 8 * blocks) return 1;
  const int shares = min(max(1, blocks / tiles) + static_cast<int>(threadIdx.x) % 32, length);
  const int64_t rounds = (tiles * shares + blocks - 1) / blocks, most = (length + shares - 1) / shares;
  int64_t best = rounds * (2 * most + 1) << 32 | shares;
  for (int step = 16; step > 0; step /= 2) best = min(best, __shfl_xor_sync(kAll, best, step));
  return static_cast<int>(best & 0xffffffff);
}

// Listed queries against bank tiles first … last − 1.
template <class Tiles>
__global__ void __launch_bounds__(Tiles::kThreads, 1) compare(Filter task, List list, int first, int last) {
  __shared__ int rows[kTileQueries], open[kTileQueries], satisfied[kTileQueries];
  __shared__ float doubt[kTileQueries], sure[kTileQueries];
  CFR_DYNAMIC_SHARED(unsigned char, shared);
  Tiles products(shared);
  const int count = list.rows ? *list.count : static_cast<int>(task.query_rows.rows);
  const int tiles = (count + kTileQueries - 1) / kTileQueries, blocks = gridDim.x;
  const int shares = choose_shares(tiles, last - first, blocks);
  const float worst = __uint_as_float(*task.bank.worst);
  for (int item = blockIdx.x; item < tiles * shares; item += blocks) {
    const int tile = item / shares, share = item % shares, place = threadIdx.x;
    bool mine = false;
    if (place < kTileQueries) {
      const int at = tile * kTileQueries + place;
      const bool listed = at < count;
      const int row = !listed ? 0 : list.rows ? list.rows[at] : at;
      const float error = cosine_error(task.query.residual[row], worst, task.query_rows.cols);
      mine = listed && !task.reliable[row] && (list.rows || !task.valid || task.valid[row]);
      rows[place] = row;
      open[place] = mine;
      satisfied[place] = 0;
      doubt[place] = mine ? task.bound - error : INFINITY;
      sure[place] = task.bound + error;
    }
    if (!__syncthreads_or(mine)) continue;
    const auto row_at = [](int at) { return rows[at]; };
    const auto start = [&](int64_t at) { return first + static_cast<int>((last - first) * at / shares); };
    Judge epilogue{task, rows, open, satisfied, doubt, sure};
    products.walk(Tiles::kTiled && list.rows ? task.gathered : task.query, tile, row_at, task.bank, start(share),
                  start(share + 1), epilogue);
  }
}

// The doubtful rows of the queries that are left, one warp a query.
__global__ void decide(Filter task, bool wide, List list, List exhaustive) {
  const int count = *list.count, lane = threadIdx.x % 32;
  for (int at = blockIdx.x * kWarps + threadIdx.x / 32; at < count; at += gridDim.x * kWarps) {
    const int row = list.rows[at], doubtful = task.doubtful_count[row];
    bool near = false;
    if (lane < doubtful && lane < kDoubtful) {
      const int64_t key = task.doubtful[static_cast<int64_t>(row) * kDoubtful + lane];
      const float value = exact_cosine(task.query_rows.data + row * task.query_rows.stride, task.query.scale[row],
                                       task.bank_rows.data + key * task.bank_rows.stride, task.bank.scale[key],
                                       task.query_rows.cols, wide);
      near = !(value <= task.bound);
    }
    const bool any = __ballot_sync(kAll, near) != 0;
    if (lane == 0 && any) task.reliable[row] = true;
    append(exhaustive, lane == 0 && !any && doubtful > kDoubtful, row);
  }
}

__global__ void settle(Filter task, List list, const float* similarity) {
  const int count = *list.count;
  for (int at = blockIdx.x * kTileThreads + threadIdx.x; at < count; at += gridDim.x * kTileThreads)
    if (!(similarity[list.rows[at]] <= task.bound)) task.reliable[list.rows[at]] = true;
}

// Sizes of one call and its scratch memory, carved from `base` (null: only counted).
struct Plan {
  Filter filter;
  List lists[2], exhaustive;
  float* similarity;
  uint64_t* partial;
  int* counters;
  TileDevice tiles;
  int bank_tiles, blocks, exact_blocks;
  int* starts;  // for select_rows
  int64_t scratch;
  static constexpr int kCounters = 4;  // of the lists, and the worst residual

  Plan(const Rows& query, const Rows& bank, int device, void* base)
      : tiles(device, Precision::bf16, 5 * kTileQueries * 4) {
    blocks = tiles.processors;
    exact_blocks = 2 * tiles.processors;
    bank_tiles = static_cast<int>((bank.rows + kTileKeys - 1) / kTileKeys);
    filter.query_rows = query;
    filter.bank_rows = bank;
    filter.valid = nullptr;

    Carver carver(base);
    counters = carver.take<int>(kCounters);
    filter.query = carve_unit_rows(carver, Precision::bf16, query, kTileQueries, tiles.wgmma);
    filter.bank = carve_unit_rows(carver, Precision::bf16, bank, kTileKeys, tiles.wgmma);
    filter.gathered = filter.query;
    if (tiles.wgmma) filter.gathered.data = carver.take<unsigned char>(filter.query.padded * filter.query.row_bytes);
    filter.bank.worst = reinterpret_cast<unsigned*>(counters + 3);
    filter.reliable = carver.take<bool>(query.rows);
    filter.doubtful_count = carver.take<int>(query.rows);
    filter.doubtful = carver.take<int>(query.rows * kDoubtful);
    lists[0] = {carver.take<int>(query.rows), counters};
    lists[1] = {carver.take<int>(query.rows), counters + 1};
    exhaustive = {carver.take<int>(query.rows), counters + 2};
    similarity = carver.take<float>(query.rows);
    partial = carver.take<uint64_t>(exact_search_scratch(exact_blocks));
    starts = carver.take<int>(select_blocks(query.rows));
    scratch = carver.used();
  }
};

template <class Tiles>
void launch_compare(const Plan& plan, const List& list, int first, int last, cudaStream_t stream) {
  if (Tiles::kTiled && list.rows) {
    CFR_LAUNCH(gather_rows, 4 * plan.blocks, kTileThreads, 0, stream, plan.filter, list);
    check(cudaGetLastError(), "confidence_filter: gather rows");
  }
  admit<Tiles>(compare<Tiles>, "confidence_filter: shared memory");
  CFR_LAUNCH(compare<Tiles>, plan.blocks, kTileThreads, Tiles::kSharedBytes, stream, plan.filter, list, first, last);
  check(cudaGetLastError(), "confidence_filter: compare");
}

void find_reliable(const Plan& plan, cudaStream_t on) {
  const Filter& filter = plan.filter;
  const Rows &query = filter.query_rows, &bank = filter.bank_rows;
  unit_rows(query, filter.query, on);
  unit_rows(bank, filter.bank, on);
  const auto gather = [&](const List& from, const List& to) {
    check(cudaMemsetAsync(to.count, 0, sizeof(int), on), "confidence_filter: counter");
    CFR_LAUNCH(gather_open, 2 * plan.blocks, kTileThreads, 0, on, filter, from, to);
    check(cudaGetLastError(), "confidence_filter: gather");
  };
  int phase = 0, length = plan.bank_tiles < kFirstShare ? 1 : plan.bank_tiles / kFirstShare;
  List list = {nullptr, nullptr};
  for (int first = 0, last = 0; first < plan.bank_tiles; first = last, length *= 2, ++phase) {
    // What would be left for a shorter phase at the end is done with the one before.
    last = plan.bank_tiles - first < 2 * int64_t(length) ? plan.bank_tiles : first + length;
    with_tiles<Bfloat16>(plan.tiles, [&](auto use) {
      launch_compare<typename decltype(use)::Tiles>(plan, list, first, last, on);
    });
    gather(list, plan.lists[phase % 2]);
    list = plan.lists[phase % 2];
  }
  const bool wide = starts_wide(query) && starts_wide(bank);
  CFR_LAUNCH(decide, 16 * plan.blocks, kTileThreads, 0, on, filter, wide, list, plan.exhaustive);
  check(cudaGetLastError(), "confidence_filter: decide");
  const ExactSearch exact{query, bank, filter.query.scale, filter.bank.scale, 1, plan.exhaustive.rows,
                          plan.exhaustive.count, plan.partial, plan.similarity, nullptr};
  exact_search(exact, plan.exact_blocks, on);
  CFR_LAUNCH(settle, plan.blocks, kTileThreads, 0, on, filter, plan.exhaustive, plan.similarity);
  check(cudaGetLastError(), "confidence_filter: settle");
}

}  // namespace

int64_t confidence_filter_scratch(const Rows& query, const Rows& bank, int device) {
  return Plan(query, bank, device, nullptr).scratch;
}

void confidence_filter(const Rows& query, const Rows& bank, double threshold, const bool* valid, void* scratch,
                       int64_t* index, int64_t* count, int device, void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  if (query.rows == 0) {
    check(cudaMemsetAsync(count, 0, sizeof *count, on), "confidence_filter: no rows");
    return;
  }
  Plan plan(query, bank, device, scratch);
  plan.filter.bound = largest_outside(static_cast<float>(threshold));
  plan.filter.valid = valid;
  check(cudaMemsetAsync(plan.counters, 0, Plan::kCounters * sizeof(int), on), "confidence_filter: counters");
  check(cudaMemsetAsync(plan.filter.reliable, 0, query.rows, on), "confidence_filter: flags");
  check(cudaMemsetAsync(plan.filter.doubtful_count, 0, query.rows * sizeof(int), on), "confidence_filter: doubtful");
  if (bank.rows > 0) find_reliable(plan, on);
  select_rows(plan.filter.reliable, valid, query.rows, plan.starts, index, count, on);
}

}  // namespace cfr::cuda
