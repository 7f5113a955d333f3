// Softmax attention of every query over k listed rows, and its gradient: rows are read where they lie.
//
// The gradient adds to a row of keys and values in ascending order of query: the pairs of query and row are sorted
// by row once, and every row is one thread's.
#include <algorithm>
#include <cmath>
#include <vector>

#include "parallel.h"
#include "vectors.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kChunk = 64;  // queries, or rows of the bank, handed to a thread at once

CFR_INLINE const float* row_of(const Rows& matrix, int64_t row) { return matrix.data + row * matrix.stride; }

// out = Σ weight[i] · rows[list[i]]: sums of kRun terms in the order of the list, then their sum, so that a long
// list gathers little rounding.
CFR_INLINE void combine(const Rows& rows, const int64_t* list, const float* weight, int64_t count,
                        float* __restrict out) {
  constexpr int64_t kVectors = 4, kRun = 64;
  int64_t col = 0;
  for (; col + kVectors * kLanes <= rows.cols; col += kVectors * kLanes) {
    Floats sum[kVectors] = {};
    for (int64_t i = 0; i < count;) {
      Floats run[kVectors] = {};
      for (const int64_t end = std::min(i + kRun, count); i < end; ++i) {
        const float* row = row_of(rows, list[i]) + col;
        for (int64_t v = 0; v < kVectors; ++v) run[v] += weight[i] * vector_at(row + v * kLanes);
      }
      for (int64_t v = 0; v < kVectors; ++v) sum[v] += run[v];
    }
    for (int64_t v = 0; v < kVectors; ++v) vector_at(out + col + v * kLanes) = sum[v];
  }
  for (; col < rows.cols; ++col) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += double(weight[i]) * row_of(rows, list[i])[col];
    out[col] = float(sum);
  }
}

// weight = softmax(scale · query · keys[list]).
CFR_INLINE void weigh(const float* query, const Rows& keys, const int64_t* list, int64_t count, float scale,
                      float* weight) {
  float highest = -INFINITY;
  for (int64_t i = 0; i < count; ++i) {
    weight[i] = dot(query, row_of(keys, list[i]), keys.cols) * scale;
    highest = std::max(highest, weight[i]);
  }
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += weight[i] = std::exp(weight[i] - highest);
  for (int64_t i = 0; i < count; ++i) weight[i] = float(weight[i] / sum);
}

struct Range {
  int64_t begin, end;
};

CFR_INLINE void attend_body(const Lists& attention, float scale, Range queries, float* weight, float* out) {
  const auto& [query, keys, values, index, k] = attention;
  for (int64_t row = queries.begin; row < queries.end; ++row) {
    const int64_t* list = index + row * k;
    weigh(row_of(query, row), keys, list, k, scale, weight);
    combine(values, list, weight, k, out + row * values.cols);
  }
}

void attend_portable(const Lists& attention, float scale, Range queries, float* weight, float* out) {
  attend_body(attention, scale, queries, weight, out);
}

CFR_AVX2 void attend_avx2(const Lists& attention, float scale, Range queries, float* weight, float* out) {
  attend_body(attention, scale, queries, weight, out);
}

// weight [U, k]; slope [U, k], the gradient with respect to the unscaled logits; and what follows for the queries.
CFR_INLINE void differentiate_body(const Lists& attention, float scale, const Rows& grad, Range queries,
                                   float* weight, float* slope, float* grad_query) {
  const auto& [query, keys, values, index, k] = attention;
  for (int64_t row = queries.begin; row < queries.end; ++row) {
    const int64_t* list = index + row * k;
    float *w = weight + row * k, *s = slope + row * k;
    weigh(row_of(query, row), keys, list, k, scale, w);
    double mean = 0;
    for (int64_t i = 0; i < k; ++i) {
      s[i] = dot(row_of(grad, row), row_of(values, list[i]), values.cols);
      mean += double(w[i]) * s[i];
    }
    for (int64_t i = 0; i < k; ++i) s[i] = float(scale * w[i] * (s[i] - mean));
    combine(keys, list, s, k, grad_query + row * query.cols);
  }
}

void differentiate_portable(const Lists& attention, float scale, const Rows& grad, Range queries, float* weight,
                            float* slope, float* grad_query) {
  differentiate_body(attention, scale, grad, queries, weight, slope, grad_query);
}

CFR_AVX2 void differentiate_avx2(const Lists& attention, float scale, const Rows& grad, Range queries,
                                 float* weight, float* slope, float* grad_query) {
  differentiate_body(attention, scale, grad, queries, weight, slope, grad_query);
}

void combine_portable(const Rows& rows, const int64_t* list, const float* weight, int64_t count, float* out) {
  combine(rows, list, weight, count, out);
}

CFR_AVX2 void combine_avx2(const Rows& rows, const int64_t* list, const float* weight, int64_t count, float* out) {
  combine(rows, list, weight, count, out);
}

// The pairs of query and row, sorted by row, then by query: those of row r are [start[r], start[r + 1]).
struct Pairs {
  std::vector<int64_t> start, query;
  std::vector<float> weight, slope;

  Pairs(const Lists& attention, const std::vector<float>& weights, const std::vector<float>& slopes)
      : start(attention.keys.rows + 2), query(weights.size()), weight(weights.size()), slope(weights.size()) {
    const int64_t k = attention.k;
    for (size_t pair = 0; pair < weights.size(); ++pair) ++start[attention.index[pair] + 2];
    for (size_t row = 2; row < start.size(); ++row) start[row] += start[row - 1];
    for (int64_t row = 0, pair = 0; row < attention.query.rows; ++row)
      for (int64_t i = 0; i < k; ++i, ++pair) {
        const int64_t at = start[attention.index[pair] + 1]++;
        query[at] = row;
        weight[at] = weights[pair];
        slope[at] = slopes[pair];
      }
  }
};

template <class Task>
void parallel_chunks(int64_t rows, const Task& task) {
  parallel_tasks((rows + kChunk - 1) / kChunk, [&](const auto& next) {
    for (int64_t chunk; (chunk = next()) >= 0;) task(Range{chunk * kChunk, std::min(rows, (chunk + 1) * kChunk)});
  });
}

}  // namespace

void topk_attention(const Lists& attention, float scale, float* out) {
  const auto attend = avx2_in_use() ? attend_avx2 : attend_portable;
  parallel_chunks(attention.query.rows, [&](Range queries) {
    std::vector<float> weight(attention.k);
    attend(attention, scale, queries, weight.data(), out);
  });
}

void topk_attention_backward(const Lists& attention, float scale, const Rows& grad, float* grad_query,
                             float* grad_keys, float* grad_values) {
  const auto differentiate = avx2_in_use() ? differentiate_avx2 : differentiate_portable;
  const auto combine = avx2_in_use() ? combine_avx2 : combine_portable;
  const Rows& query = attention.query;
  std::vector<float> weight(query.rows * attention.k), slope(query.rows * attention.k);
  parallel_chunks(query.rows, [&](Range queries) {
    differentiate(attention, scale, grad, queries, weight.data(), slope.data(), grad_query);
  });
  const Pairs pairs(attention, weight, slope);
  parallel_chunks(attention.keys.rows, [&](Range rows) {
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const int64_t first = pairs.start[row], count = pairs.start[row + 1] - first;
      const int64_t* list = pairs.query.data() + first;
      combine(query, list, pairs.slope.data() + first, count, grad_keys + row * query.cols);
      combine(grad, list, pairs.weight.data() + first, count, grad_values + row * grad.cols);
    }
  });
}

}  // namespace cfr::cpu
