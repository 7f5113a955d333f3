// Softmax attention over a whole bank without the N × M matrix: tiles of the bank pass by, and every query keeps
// the largest logit so far, the sum of the exponentials and the weighted values relative to it (online softmax,
// Milakov & Gimelshein 2018; Dao et al. 2022).
//
// Products are formed transposed, keys × queries: a tile of logits then is, as it lies, the packed right operand
// of the product with the values, and the softmax runs down its columns with one query a lane.
#include <algorithm>
#include <cfloat>

#include "parallel.h"
#include "vectors.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kKeyTile = 192;   // keys per tile, a multiple of every `left`: depth of the second product
constexpr int64_t kQueryTile = 96;  // queries per tile: they share the reading of a tile of values

// What eight queries remember from tile to tile.
struct Softmax {
  float highest[kLanes], sum[kLanes], correction[kLanes];
};

// logits [count, stride], eight columns of which belong to `state`, become exp(logit − highest); `correction` is
// what earlier sums are to be multiplied by. `highest` starts at −FLT_MAX: −∞ less −∞ would be NaN.
CFR_INLINE void weigh_body(float* __restrict logits, int64_t count, int64_t stride, Softmax& state) {
  const Floats before = vector_at(state.highest);
  Floats highest[2] = {before, before};
  int64_t row = 0;
  for (; row + 2 <= count; row += 2)
    for (int64_t i = 0; i < 2; ++i) {
      const Floats& logit = vector_at(logits + (row + i) * stride);
      highest[i] = logit > highest[i] ? logit : highest[i];
    }
  for (; row < count; ++row) {
    const Floats& logit = vector_at(logits + row * stride);
    highest[0] = logit > highest[0] ? logit : highest[0];
  }
  const Floats bound = highest[0] > highest[1] ? highest[0] : highest[1];
  Floats correction = before - bound;
  exp_of_negative(correction);
  Floats sum = vector_at(state.sum) * correction;
  for (row = 0; row < count; ++row) {
    Floats weight = vector_at(logits + row * stride) - bound;
    exp_of_negative(weight);
    vector_at(logits + row * stride) = weight;
    sum += weight;
  }
  vector_at(state.highest) = bound;
  vector_at(state.sum) = sum;
  vector_at(state.correction) = correction;
}

void weigh_portable(float* logits, int64_t count, int64_t stride, Softmax& state) {
  weigh_body(logits, count, stride, state);
}

CFR_AVX2 void weigh_avx2(float* logits, int64_t count, int64_t stride, Softmax& state) {
  weigh_body(logits, count, stride, state);
}

// Packs the columns of rows [first, first + count) as [panel][row][width], padded with zero columns.
void pack_columns(const Rows& matrix, int64_t first, int64_t count, int64_t width, float* out) {
  for (int64_t col = 0; col < matrix.cols; col += width) {
    const int64_t cols = std::min(width, matrix.cols - col);
    for (int64_t row = 0; row < count; ++row, out += width) {
      const float* x = matrix.data + (first + row) * matrix.stride + col;
      for (int64_t c = 0; c < cols; ++c) out[c] = x[c];
      for (int64_t c = cols; c < width; ++c) out[c] = 0;
    }
  }
}

// The bank, packed tile by tile.
class Bank {
 public:
  Bank(const Kernels& kernels, const Rows& keys, const Rows& values)
      : kernels_(kernels),
        rows_(keys.rows),
        depth_(keys.cols),
        width_(round_up(values.cols, kernels.left)),
        keys_(round_up(keys.rows, kernels.left) * keys.cols),
        values_(keys.rows * width_) {
    const std::vector<float> ones(kKeyTile, 1.0f);
    parallel_tasks(tiles(), [&](const auto& next) {
      for (int64_t tile; (tile = next()) >= 0;) {
        const int64_t first = tile * kKeyTile;
        pack(keys, ones.data(), first, count(tile), kernels.left, keys_.get() + first * depth_);
        pack_columns(values, first, count(tile), kernels.left, values_.get() + first * width_);
      }
    });
  }

  int64_t tiles() const { return (rows_ + kKeyTile - 1) / kKeyTile; }
  int64_t count(int64_t tile) const { return std::min(kKeyTile, rows_ - tile * kKeyTile); }
  int64_t width() const { return width_; }

  // logits [count, right] of one tile and one panel of queries; further rows up to a multiple of `left` are zero.
  void score(int64_t tile, const float* queries, float* logits) const {
    multiply(kernels_, keys_.get() + tile * kKeyTile * depth_, round_up(count(tile), kernels_.left), queries,
             kernels_.right, depth_, logits);
  }

  // Adds weight [count, right] times the values of a tile, from column `col` on, to sums [left, right].
  void add_values(int64_t tile, int64_t col, const float* weight, float* sums) const {
    const float* panel = values_.get() + tile * kKeyTile * width_ + col * count(tile);
    kernels_.multiply(panel, weight, count(tile), sums, kernels_.right, true);
  }

 private:
  const Kernels& kernels_;
  int64_t rows_, depth_, width_;
  Scratch keys_, values_;
};

// A tile of queries on its way along the bank, in panels of `right`.
class QueryTile {
 public:
  QueryTile(const Kernels& kernels, const Bank& bank, int64_t depth, int64_t rows)
      : kernels_(kernels),
        bank_(bank),
        depth_(depth),
        queries_(rows * depth),
        logits_(rows * kKeyTile),
        sums_(rows * bank.width()),
        states_(rows / kLanes) {}

  void load(const Rows& query, float scale, int64_t first, int64_t count) {
    const std::vector<float> scales(kernels_.right, scale);
    panels_ = (count + kernels_.right - 1) / kernels_.right;
    for (int64_t panel = 0; panel < panels_; ++panel) {
      const int64_t start = panel * kernels_.right;
      pack(query, scales.data(), first + start, std::min(kernels_.right, count - start), kernels_.right,
           queries_.get() + start * depth_);
    }
    std::fill_n(sums_.get(), panels_ * kernels_.right * bank_.width(), 0.0f);
    for (Softmax& state : states_) {
      std::fill_n(state.highest, kLanes, -FLT_MAX);
      std::fill_n(state.sum, kLanes, 0.0f);
    }
  }

  void meet(int64_t tile) {
    const auto weigh = avx2_in_use() ? weigh_avx2 : weigh_portable;
    const int64_t right = kernels_.right;
    for (int64_t panel = 0; panel < panels_; ++panel) {
      bank_.score(tile, queries_.get() + panel * right * depth_, logits(panel));
      for (int64_t lane = 0; lane < right; lane += kLanes)
        weigh(logits(panel) + lane, bank_.count(tile), right, state(panel, lane));
      correct(panel);
    }
    for (int64_t col = 0; col < bank_.width(); col += kernels_.left)
      for (int64_t panel = 0; panel < panels_; ++panel)
        bank_.add_values(tile, col, logits(panel), sums(panel) + col * right);
  }

  void store(int64_t count, int64_t cols, float* out) {
    for (int64_t row = 0; row < count; ++row, out += cols) {
      const int64_t panel = row / kernels_.right, lane = row % kernels_.right;
      const float sum = state(panel, lane).sum[lane % kLanes];
      for (int64_t col = 0; col < cols; ++col) out[col] = sums(panel)[col * kernels_.right + lane] / sum;
    }
  }

 private:
  float* logits(int64_t panel) { return logits_.get() + panel * kernels_.right * kKeyTile; }
  float* sums(int64_t panel) { return sums_.get() + panel * kernels_.right * bank_.width(); }
  Softmax& state(int64_t panel, int64_t lane) { return states_[(panel * kernels_.right + lane) / kLanes]; }

  void correct(int64_t panel) {
    const int64_t right = kernels_.right;
    for (int64_t lane = 0; lane < right; lane += kLanes) {
      const float* correction = state(panel, lane).correction;
      if (std::all_of(correction, correction + kLanes, [](float factor) { return factor == 1; })) continue;
      for (float *sum = sums(panel) + lane, *end = sum + bank_.width() * right; sum < end; sum += right)
        for (int64_t i = 0; i < kLanes; ++i) sum[i] *= correction[i];
    }
  }

  const Kernels& kernels_;
  const Bank& bank_;
  int64_t depth_, panels_ = 0;
  Scratch queries_, logits_, sums_;
  std::vector<Softmax> states_;
};

}  // namespace

void bank_attention(const Rows& query, const Rows& keys, const Rows& values, float scale, float* out) {
  const Kernels& kernels = cpu::kernels();
  const Bank bank(kernels, keys, values);
  const int64_t share = (query.rows + thread_count() - 1) / thread_count();
  const int64_t rows = round_up(std::min(kQueryTile, share), kernels.right);
  parallel_tasks((query.rows + rows - 1) / rows, [&](const auto& next) {
    QueryTile queries(kernels, bank, query.cols, rows);
    for (int64_t task; (task = next()) >= 0;) {
      const int64_t first = task * rows, count = std::min(rows, query.rows - first);
      queries.load(query, scale, first, count);
      for (int64_t tile = 0; tile < bank.tiles(); ++tile) queries.meet(tile);
      queries.store(count, values.cols, out + first * values.cols);
    }
  });
}

}  // namespace cfr::cpu
