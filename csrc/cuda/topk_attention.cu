// Softmax attention of every query over k listed rows, one warp a query: rows are read where they lie.
//
// Lists are met 32 entries at a time, an entry a lane. A longer list goes by online softmax (Milakov & Gimelshein
// 2018), its sums waiting in the result's own row, which only this warp touches.
#include <cfloat>

#include "launch.h"
#include "listed.h"
#include "vectors.h"
#include "warp.h"

namespace cfr::cuda {
namespace {

constexpr int kWarps = 4;   // queries a block
constexpr int kAtOnce = 4;  // dot products under way together, for more loads in flight; divides 32

struct Aligned {
  bool query, keys, values, out;
};

__device__ inline float dot4(const float4& a, const float4& b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// The dot product of the query with row `entry` of keys; `entry`, some row in lanes beyond `count` too, and the result
// are this lane's own.
__device__ inline float own_product(const Rows& query, const Rows& keys, const Aligned& aligned, int64_t row,
                                    int64_t entry, int count) {
  const int lane = threadIdx.x % 32;
  float own = 0.0f;
  for (int first = 0; first < count; first += kAtOnce) {
    int64_t rows[kAtOnce];
    float sum[kAtOnce] = {};
    for (int i = 0; i < kAtOnce; ++i) rows[i] = __shfl_sync(kAll, entry, first + i);
    for (int col = 4 * lane; col < query.cols; col += 128) {
      const float4 x = read4(query, aligned.query, row, col);
      for (int i = 0; i < kAtOnce; ++i) sum[i] = dot4(x, read4(keys, aligned.keys, rows[i], col), sum[i]);
    }
    for (int i = 0; i < kAtOnce; ++i) {
      const float product = warp_sum(sum[i]);
      if (lane == first + i) own = product;
    }
  }
  return own;
}

__device__ inline void add(float4& sum, float weight, const float4& x) {
  sum.x = fmaf(weight, x.x, sum.x);
  sum.y = fmaf(weight, x.y, sum.y);
  sum.z = fmaf(weight, x.z, sum.z);
  sum.w = fmaf(weight, x.w, sum.w);
}

// Row `row` of `out` becomes factor · itself (nothing when `fresh`) + Σ weight · values[entry].
__device__ inline void combine(const Rows& values, const Aligned& aligned, float weight, int64_t entry, int count,
                               bool fresh, float factor, const Rows& out, float* to, int64_t row) {
  for (int first = 0; first < values.cols; first += 128) {  // by all lanes: they hand each other the weights
    const int col = first + threadIdx.x % 32 * 4;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (!fresh) add(sum, factor, read4(out, aligned.out, row, col));
    for (int i = 0; i < count; ++i) {
      const int64_t source = __shfl_sync(kAll, entry, i);
      add(sum, __shfl_sync(kAll, weight, i), read4(values, aligned.values, source, col));
    }
    write4(to, out.cols, aligned.out, row, col, sum);
  }
}

// `out` is `to`, for reading.
__global__ void __launch_bounds__(32 * kWarps)
    attend(cpu::Lists attention, Aligned aligned, float scale, const int64_t* real, Rows out, float* to) {
  const auto& [query, keys, values, index, k] = attention;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= query.rows) return;
  if (k == 0 || row >= real_rows(real, query.rows)) {
    combine(values, aligned, 0.0f, 0, 0, true, 1.0f, out, to, row);
    return;
  }
  // −FLT_MAX, as −∞ less −∞ would be NaN. A NaN is never the highest, but makes the total NaN.
  float highest = -FLT_MAX, total = 0.0f;
  for (int64_t first = 0; first < k; first += 32) {
    const int count = k - first < 32 ? static_cast<int>(k - first) : 32;
    const int64_t entry = lane < count ? index[row * k + first + lane] : 0;
    const float before = highest;
    const float logit = own_product(query, keys, aligned, row, entry, count) * scale;
    if (lane < count && logit > highest) highest = logit;
    for (int step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(kAll, highest, step);
      highest = other > highest ? other : highest;
    }
    float weight = lane < count ? expf(logit - highest) : 0.0f;
    const float added = warp_sum(weight);
    float correction = expf(before - highest);
    total = total * correction + added;
    if (first + count == k) {  // nothing follows: divide what is added and what is there
      weight /= total;
      correction /= total;
    }
    combine(values, aligned, weight, entry, count, first == 0, correction, out, to, row);
  }
}

}  // namespace

void topk_attention(const cpu::Lists& attention, float scale, const int64_t* count, float* out, int device,
                    void* stream) {
  const DeviceGuard guard(device);
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t rows = attention.query.rows, cols = attention.values.cols;
  const Rows result = {out, rows, cols, cols};
  const Aligned aligned = {is_aligned(attention.query), is_aligned(attention.keys), is_aligned(attention.values),
                           is_aligned(result)};
  CFR_LAUNCH(attend, blocks_for(rows, kWarps), 32 * kWarps, 0, on, attention, aligned, scale, count, result, out);
  check(cudaGetLastError(), "topk_attention");
}

}  // namespace cfr::cuda
