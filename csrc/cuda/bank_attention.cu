// Softmax attention over a whole bank, for a bounded number of queries at a time: their logits, the weights from them,
// and the sums of values pass through memory that the last-level cache holds in part.
//
// Both products are by tensor cores, of split numbers (split_product.h), which keep nearly all digits. The second one
// wants the values transposed, and where queries are few, parts of the bank go to different blocks; the last kernel
// adds the parts in ascending order. What is not finite has no place in a split number: logits and columns of such rows
// are computed anew in plain float32.
#include <algorithm>
#include <cfloat>

#include "split_product.h"
#include "warp.h"

namespace cfr::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kBatch = 5;                       // loads of four logits that a thread has under way
constexpr int kColumnRows = 512;                // of values, that a block looks through for the largest of a column
constexpr int64_t kLogits = int64_t{28} << 20;  // aimed at, at a time
constexpr int64_t kPartKeys = 256;              // at least, so that a part is worth its sums

struct Attention {
  Rows query, keys, values;  // `query`: those at a time
  float scale;
  int64_t parts, part_keys, part_rows, part_cols;  // keys of a part; padded queries and columns of values
  UnitRows split_query, split_keys;
  UnitRows weights;         // [parts · part_rows, part_keys]
  UnitRows split_values;    // [parts · part_cols, part_keys]
  unsigned* largest;        // bits of the largest magnitude of a column of values
  float *logits, *sums;     // [queries, parts · part_keys], [parts, queries, columns of values]
  unsigned* code;           // of a query's highest logit (split_product.h)
  float* highest;           // of a query's softmax
  float* total;             // [parts, queries]: of a part's weights
  int *counted, *place;     // [parts, queries]: how many keys have weight, and where there is one, which
  __device__ int64_t stride() const { return parts * part_keys; }
};

// largest[col], 0 before.
__global__ void __launch_bounds__(kThreads) find_largest(Rows values, unsigned* largest) {
  __shared__ unsigned found[kWarps][32];
  const int64_t col = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x % 32;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * kColumnRows, end = min(values.rows, first + kColumnRows);
  unsigned most = 0;
  for (int64_t row = first + threadIdx.x / 32; row < end && col < values.cols; row += kWarps)
    most = max(most, magnitude(values.data[row * values.stride + col]));
  found[threadIdx.x / 32][threadIdx.x % 32] = most;
  __syncthreads();
  if (threadIdx.x >= 32 || col >= values.cols) return;
  for (int warp = 0; warp < kWarps; ++warp) most = max(most, found[warp][threadIdx.x]);
  atomicMax(largest + col, most);
}

// The values' columns as split rows, 32 keys × 32 columns a block.
__global__ void __launch_bounds__(kThreads) transpose_values(Attention task) {
  __shared__ float tile[32][33];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t pieces = task.part_keys / kSplitColumns, part = blockIdx.x / pieces;
  const int64_t local = blockIdx.x % pieces * kSplitColumns, key = part * task.part_keys + local;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * 32;
  const Rows& values = task.values;
  for (int i = warp; i < 32; i += kWarps) {
    const bool inside = key + i < values.rows && first + lane < values.cols;
    tile[i][lane] = inside ? values.data[(key + i) * values.stride + first + lane] : 0.0f;
  }
  __syncthreads();
  for (int i = warp; i < 32; i += kWarps) {
    const int64_t col = first + i, row = part * task.part_cols + col;
    const unsigned largest = col < values.cols ? task.largest[col] : 0;
    const bool finite = largest < 0x7f800000u;
    const SplitScale scale(finite ? largest : 0);
    SplitRow(task.split_values, row).put(local + lane, finite ? tile[lane][i] * scale.to : 0.0f);
    if (local == 0 && lane == 0) task.split_values.scale[row] = finite ? scale.back : NAN;
  }
}

// `logit` unless it is NaN, as it is of numbers that are not finite.
__device__ inline float settled(const Attention& task, int64_t row, int64_t key, float logit) {
  if (!isnan(logit)) return logit;
  float sum = 0.0f;
  const float* const a = task.query.data + row * task.query.stride;
  const float* const b = task.keys.data + key * task.keys.stride;
  for (int64_t col = 0; col < task.keys.cols; ++col) sum = fmaf(a[col], b[col], sum);
  return sum * task.scale;
}

__device__ inline float logit_at(const Attention& task, int64_t row, int64_t key) {
  return settled(task, row, key, task.logits[row * task.stride() + key]);
}

// A query's highest logit; −FLT_MAX at least: −∞ less −∞ would be NaN. A NaN is never the highest, but makes the total
// NaN. By a whole block.
__device__ float find_highest(const Attention& task, int64_t row) {
  __shared__ float number[kWarps];
  const unsigned code = task.code[row];
  if (code != kNanCode) return fmaxf(number_of(code), -FLT_MAX);
  float highest = -FLT_MAX;
  for (int64_t key = threadIdx.x; key < task.keys.rows; key += kThreads) {
    const float logit = logit_at(task, row, key);
    highest = logit > highest ? logit : highest;
  }
  for (int step = 16; step > 0; step /= 2) highest = fmaxf(highest, __shfl_xor_sync(kAll, highest, step));
  if (threadIdx.x % 32 == 0) number[threadIdx.x / 32] = highest;
  __syncthreads();
  for (int i = 0; i < kWarps; ++i) highest = fmaxf(highest, number[i]);
  return highest;
}

// One block a query and part: its logits become weights relative to the highest. A thread's loads are all under way
// before it needs the first.
__global__ void __launch_bounds__(kThreads) weigh(Attention task) {
  __shared__ float number[kWarps];
  __shared__ int counts[kWarps], places[kWarps];
  const int64_t row = blockIdx.x, part = blockIdx.y, keys = task.keys.rows, place = part * task.query.rows + row;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int part_keys = static_cast<int>(task.part_keys);
  const int real = static_cast<int>(max(int64_t(0), min(task.part_keys, keys - part * task.part_keys)));
  const float* const logits = task.logits + row * task.stride() + part * task.part_keys;
  const float highest = find_highest(task, row);
  const SplitRow to(task.weights, part * task.part_rows + row);
  float total = 0.0f;
  int count = 0, only = 0;
  for (int base = 4 * threadIdx.x; base < part_keys; base += 4 * kBatch * kThreads) {
    float4 batch[kBatch];
    CFR_UNROLL
    for (int i = 0; i < kBatch; ++i) {
      const int local = base + i * 4 * kThreads;
      if (local < real) batch[i] = __ldcs(reinterpret_cast<const float4*>(logits + local));
    }
    CFR_UNROLL
    for (int i = 0; i < kBatch; ++i) {
      const int local = base + i * 4 * kThreads;
      if (local >= part_keys) break;
      const float logit[4] = {batch[i].x, batch[i].y, batch[i].z, batch[i].w};
      float weight[4];
      CFR_UNROLL
      for (int e = 0; e < 4; ++e) {
        weight[e] = 0.0f;
        if (local + e < real)
          weight[e] = expf(settled(task, row, part * task.part_keys + local + e, logit[e]) - highest);
        total += weight[e];
        if (weight[e] != 0.0f) ++count, only = local + e;
        weight[e] *= kSplitOne;
      }
      to.put_four(local, weight);
    }
  }
  if (count == 0) only = 0;
  total = warp_sum(total);
  count = warp_sum(count);
  only = warp_sum(only);  // where one key alone has weight
  if (lane == 0) number[warp] = total, counts[warp] = count, places[warp] = only;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < kWarps; ++i) total += number[i], count += counts[i], only += places[i];
  task.weights.scale[part * task.part_rows + row] = 1.0f / kSplitOne;
  task.total[place] = total;
  task.counted[place] = count;
  task.place[place] = static_cast<int>(part * task.part_keys) + only;
  if (part == 0) task.highest[row] = highest;
}

// One block a query: the parts' sums over the total.
__global__ void __launch_bounds__(kThreads) finish(Attention task, float* out) {
  const int64_t row = blockIdx.x, cols = task.values.cols;
  float total = 0.0f;
  int count = 0, only = 0;
  for (int64_t part = 0; part < task.parts; ++part) {
    const int64_t at = part * task.query.rows + row;
    total += task.total[at];
    count += task.counted[at];
    if (task.counted[at] == 1) only = task.place[at];
  }
  for (int64_t col = threadIdx.x; col < cols; col += kThreads) {
    float sum = 0.0f;
    if (task.largest[col] >= 0x7f800000u) {
      for (int64_t key = 0; key < task.keys.rows; ++key)
        sum = fmaf(expf(logit_at(task, row, key) - task.highest[row]),
                   task.values.data[key * task.values.stride + col], sum);
    } else if (count == 1) {  // to the last bit
      sum = task.values.data[only * task.values.stride + col];
    } else {
      for (int64_t part = 0; part < task.parts; ++part) sum += task.sums[(part * task.query.rows + row) * cols + col];
    }
    out[row * cols + col] = sum / total;
  }
}

// Sizes of one call and its scratch memory, carved from `base` (null: only counted).
struct Plan {
  TileDevice device;
  Attention task = {};
  int64_t bytes;

  Plan(const Rows& query, const Rows& keys, const Rows& values, float scale, int index, void* base)
      : device(split_device(index)) {
    const int64_t wanted = kLogits / keys.rows / kTileQueries * kTileQueries;
    const int64_t rows = std::min(query.rows, std::max<int64_t>(wanted, kTileQueries));
    task.query = query, task.keys = keys, task.values = values, task.scale = scale;
    task.query.rows = rows;
    task.part_rows = round_up(rows, kTileQueries), task.part_cols = round_up(values.cols, kTileKeys);
    const int64_t tiles = task.part_rows / kTileQueries * (task.part_cols / kTileKeys);
    task.parts = std::max<int64_t>(1, std::min(device.processors / tiles, keys.rows / kPartKeys));
    task.part_keys = round_up((keys.rows + task.parts - 1) / task.parts, kSplitColumns);
    Carver carver(base);
    task.split_query = carve_split_rows(carver, query.rows, query.cols, kTileQueries, device.wgmma);
    task.split_keys = carve_split_rows(carver, keys.rows, keys.cols, kTileKeys, device.wgmma);
    task.weights = carve_split_rows(carver, task.parts * task.part_rows, task.part_keys, kTileQueries, device.wgmma);
    task.split_values =
        carve_split_rows(carver, task.parts * task.part_cols, task.part_keys, kTileKeys, device.wgmma);
    task.largest = carver.take<unsigned>(values.cols);
    task.logits = carver.take<float>(rows * task.parts * task.part_keys);
    task.sums = carver.take<float>(task.parts * rows * values.cols);
    task.code = carver.take<unsigned>(rows);
    task.highest = carver.take<float>(rows);
    task.total = carver.take<float>(task.parts * rows);
    task.counted = carver.take<int>(task.parts * rows);
    task.place = carver.take<int>(task.parts * rows);
    bytes = carver.used();
  }
};

}  // namespace

int64_t bank_attention_scratch(const Rows& query, const Rows& keys, const Rows& values, int device) {
  return Plan(query, keys, values, 1.0f, device, nullptr).bytes;
}

void bank_attention(const Rows& query, const Rows& keys, const Rows& values, float scale, void* scratch, float* out,
                    int device, void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  const Plan plan(query, keys, values, scale, device, scratch);
  Attention task = plan.task;
  const int64_t most = task.query.rows, cols = values.cols;
  split_rows(query, nullptr, task.split_query, on);
  split_rows(keys, nullptr, task.split_keys, on);
  check(cudaMemsetAsync(task.largest, 0, cols * sizeof(unsigned), on), "bank_attention: largest values");
  CFR_LAUNCH(find_largest, dim3(blocks_for(cols, 32), blocks_for(values.rows, kColumnRows)), kThreads, 0, on, values,
             task.largest);
  check(cudaGetLastError(), "bank_attention: largest values");
  CFR_LAUNCH(transpose_values, dim3(blocks_for(task.parts * task.part_keys, 32), blocks_for(task.part_cols, 32)),
             kThreads, 0, on, task);
  check(cudaGetLastError(), "bank_attention: values");
  for (int64_t first = 0; first < query.rows; first += most) {
    const int64_t rows = std::min(most, query.rows - first);
    UnitRows left = task.split_query;
    left.data += first * left.row_bytes, left.scale += first, left.padded = round_up(rows, kTileQueries);
    task.query.data = query.data + first * query.stride, task.query.rows = rows;
    check(cudaMemsetAsync(task.code, 0, rows * sizeof(unsigned), on), "bank_attention: highest logits");
    multiply_split(plan.device,
                   {left, task.split_keys, rows, keys.rows, task.parts * task.part_keys, scale, nullptr, nullptr, 0, 1,
                    0, task.logits, task.code},
                   on, "bank_attention: logits");
    CFR_LAUNCH(weigh, dim3(blocks_for(rows, 1), static_cast<unsigned>(task.parts)), kThreads, 0, on, task);
    check(cudaGetLastError(), "bank_attention: weights");
    multiply_split(plan.device,
                   {task.weights, task.split_values, rows, cols, cols, 1.0f, nullptr, nullptr, 0,
                    static_cast<int>(task.parts), rows * cols, task.sums, nullptr},
                   on, "bank_attention: sums");
    CFR_LAUNCH(finish, blocks_for(rows, 1), kThreads, 0, on, task, out + first * cols);
    check(cudaGetLastError(), "bank_attention: finish");
  }
}

}  // namespace cfr::cuda
