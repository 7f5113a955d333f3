// Which queries have no bank row nearer than the threshold: a query leaves as soon as one row satisfies it.
//
// Every similarity that decides comes from the same product as in topk_cosine, so the answer equals the exhaustive
// one to the last bit; what follows only chooses which products are worth computing. A tile of queries meets
//   1. the rows that satisfied the last tiles' queries: neighbouring pixels resemble the same row;
//   2. an upper bound of all similarities from a subspace of few directions plus the lengths of the rests
//      (Cauchy–Schwarz), then every query's row of the highest bound;
//   3. the rows that the bound leaves possible for those that remain.
// Where the bound says nothing (a threshold too far or features without dominant directions) the tile meets the
// whole bank in its own order, and is compacted on the way.
#include <algorithm>
#include <cmath>

#include "../cosine_threshold.h"
#include "norms.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kQueryTile = 96;     // queries per tile: the packed tile stays in the second-level cache
constexpr int64_t kBankTile = 192;     // bank rows per product, a multiple of every panel width
constexpr int64_t kRecent = 48;        // satisfying rows remembered from tile to tile
constexpr int64_t kWidth = 64;         // columns of the bound: directions and the length of the rest
constexpr int64_t kDirections = kWidth - 1;
constexpr int64_t kSample = 256;       // bank rows that choose the directions
constexpr int64_t kPause = 16;         // tiles without a bound after one whose bound left most rows possible
constexpr float kSlack = 1e-5f;        // above every rounding error of the bound

double dot(const float* a, const float* b, int64_t cols) {
  constexpr int kLanes = 8;
  double lanes[kLanes] = {}, sum = 0;
  int64_t col = 0;
  for (; col + kLanes <= cols; col += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += double(a[col + lane]) * b[col + lane];
  for (; col < cols; ++col) sum += double(a[col]) * b[col];
  for (const double lane : lanes) sum += lane;
  return sum;
}

// Orthonormal rows in place, by Gram–Schmidt run twice; a dependent row becomes zero.
void orthonormalize(float* rows, int64_t count, int64_t cols) {
  for (int64_t i = 0; i < count; ++i) {
    float* row = rows + i * cols;
    for (int round = 0; round < 2; ++round) {
      const double before = std::sqrt(dot(row, row, cols));
      for (int64_t j = 0; j < i; ++j) {
        const float* other = rows + j * cols;
        const float along = static_cast<float>(dot(row, other, cols));
        for (int64_t col = 0; col < cols; ++col) row[col] -= along * other[col];
      }
      const double after = std::sqrt(dot(row, row, cols));
      const float scale = after > 1e-4 * before ? static_cast<float>(1 / after) : 0.0f;
      for (int64_t col = 0; col < cols; ++col) row[col] *= scale;
    }
  }
}

// The bank as the tiles of queries meet it.
class Bank {
 public:
  Bank(const Kernels& kernels, const Rows& rows, float bound)
      : rows(rows),
        scale(parallel_inverse_norms(rows)),
        kernels_(kernels),
        padded_(round_up(rows.rows, kernels.right)),
        packed_(padded_ * rows.cols),
        directions_(kWidth * rows.cols),
        projected_(padded_ * kWidth) {
    over_tiles([&](int64_t first, int64_t count) {
      pack(rows, scale.data() + first, first, count, kernels.right, packed_.get() + first * rows.cols);
    });
    // Projecting has to be much cheaper than the products that it saves.
    if (rows.rows >= kSample && rows.cols >= 4 * kWidth) bounded = choose_directions() < bound;
  }

  const float* tile(int64_t first) const { return packed_.get() + first * rows.cols; }
  const float* projected_tile(int64_t first) const { return projected_.get() + first * kWidth; }

  // out[padded, kWidth] of packed left panels: coordinates along the directions and the length of the rest.
  void project(const float* panels, int64_t padded, float* out) const {
    multiply(kernels_, panels, padded, directions_.get(), kWidth, rows.cols, out);
    for (int64_t i = 0; i < padded; ++i) {
      float* row = out + i * kWidth;
      const float rest = 1 - static_cast<float>(dot(row, row, kDirections));
      row[kDirections] = std::sqrt(std::max(0.0f, rest) + kSlack);
    }
  }

  const Rows rows;
  const std::vector<float> scale;
  bool bounded = false;  // whether the subspace tells bank rows apart at this threshold

 private:
  template <class Body>
  void over_tiles(const Body& body) const {
    parallel_tasks((rows.rows + kBankTile - 1) / kBankTile, [&](const auto& next) {
      for (int64_t task; (task = next()) >= 0;)
        body(task * kBankTile, std::min(kBankTile, rows.rows - task * kBankTile));
    });
  }

  // One step of subspace iteration from rows spread over the bank; returns the mean squared rest of its rows.
  double choose_directions() {
    const int64_t cols = rows.cols;
    std::vector<int64_t> sample(kSample), start(kDirections);
    for (int64_t i = 0; i < kSample; ++i) sample[i] = i * rows.rows / kSample;
    for (int64_t i = 0; i < kDirections; ++i) start[i] = i * rows.rows / kDirections;
    const int64_t left = round_up(kDirections, kernels_.left), right = round_up(kSample, kernels_.right);
    const Scratch a(left * cols), b(right * cols), weights(left * right), basis(kWidth * cols);
    pack_listed(rows, scale.data(), start.data(), kDirections, kernels_.left, a.get());
    pack_listed(rows, scale.data(), sample.data(), kSample, kernels_.right, b.get());
    multiply(kernels_, a.get(), left, b.get(), right, cols, weights.get());
    std::fill(basis.get(), basis.get() + kWidth * cols, 0.0f);
    parallel_tasks(kDirections, [&](const auto& next) {
      for (int64_t i; (i = next()) >= 0;)
        for (int64_t j = 0; j < kSample; ++j) {
          const float weight = weights.get()[i * right + j] * scale[sample[j]];
          const float* x = rows.data + sample[j] * rows.stride;
          float* out = basis.get() + i * cols;
          for (int64_t col = 0; col < cols; ++col) out[col] += weight * x[col];
        }
    });
    orthonormalize(basis.get(), kDirections, cols);
    const std::vector<float> ones(kBankTile, 1.0f);
    pack({basis.get(), kWidth, cols, cols}, ones.data(), 0, kWidth, kernels_.right, directions_.get());

    std::vector<double> rests((rows.rows + kBankTile - 1) / kBankTile);
    over_tiles([&](int64_t first, int64_t count) {
      const int64_t padded = round_up(count, kernels_.left);
      const Scratch panels(padded * cols), out(padded * kWidth);
      pack(rows, scale.data() + first, first, count, kernels_.left, panels.get());
      project(panels.get(), padded, out.get());
      pack({out.get(), count, kWidth, kWidth}, ones.data(), 0, count, kernels_.right,
           projected_.get() + first * kWidth);
      for (int64_t i = 0; i < count; ++i) {
        const double rest = out.get()[i * kWidth + kDirections];
        rests[first / kBankTile] += rest * rest;
      }
    });
    double sum = 0;
    for (const double rest : rests) sum += rest;
    return sum / rows.rows;
  }

  const Kernels& kernels_;
  const int64_t padded_;
  const Scratch packed_, directions_, projected_;
};

// One thread's tile of queries, of which ever fewer are left.
class Tile {
 public:
  Tile(const Kernels& kernels, const Rows& query, const float* scale, const Bank& bank, float bound,
       bool* reliable)
      : kernels_(kernels),
        query_(query),
        scale_(scale),
        bank_(bank),
        bound_(bound),
        reliable_(reliable),
        panels_(kCapacity * query.cols),
        gathered_(kBankTile * query.cols),
        product_(kCapacity * kBankTile + kOverread),
        projection_(kCapacity * kWidth),
        projected_(kCapacity * kWidth),
        words_((bank.rows.rows + 63) / 64) {}

  void run(const int64_t* list, int64_t count) {
    left_.clear();
    for (int64_t i = 0; i < count; ++i) left_.push_back({list[i], i});
    repack();
    compare_listed(std::vector<int64_t>(recent_));
    if (left_.empty()) return;
    if (bank_.bounded && pause_-- <= 0) {
      bound_candidates();
      if (left_.empty()) return;
      const std::vector<int64_t> possible = possible_rows();
      if (2 * int64_t(possible.size()) <= bank_.rows.rows) return compare_listed(possible);
      pause_ = kPause;
    }
    for (int64_t first = 0; first < bank_.rows.rows && !left_.empty(); first += kBankTile)
      compare(bank_.tile(first), std::min(kBankTile, bank_.rows.rows - first),
              [&](int64_t at) { return first + at; });
  }

 private:
  static constexpr int64_t kCapacity = kQueryTile + 8;  // and the padding of any panel width

  struct Query {
    int64_t row;
    int64_t slot;  // its row of the packed tile
  };

  void repack() {
    list_.clear();
    for (Query& item : left_) {
      item.slot = int64_t(list_.size());
      list_.push_back(item.row);
    }
    padded_ = round_up(int64_t(list_.size()), kernels_.left);
    pack_listed(query_, scale_, list_.data(), int64_t(list_.size()), kernels_.left, panels_.get());
  }

  void remember(int64_t bank_row) {
    const auto at = std::find(recent_.begin(), recent_.end(), bank_row);
    if (at != recent_.end()) {
      std::rotate(recent_.begin(), at, at + 1);
    } else {
      if (recent_.size() == kRecent) recent_.pop_back();
      recent_.insert(recent_.begin(), bank_row);
    }
  }

  // Drops the queries that one of `count` packed bank rows satisfies; row_of(i) is the i-th of them.
  template <class RowOf>
  void compare(const float* bank_panels, int64_t count, const RowOf& row_of) {
    const int64_t width = round_up(count, kernels_.right);
    multiply(kernels_, panels_.get(), padded_, bank_panels, width, query_.cols, product_.get());
    auto kept = left_.begin();
    for (const Query& item : left_) {
      const int64_t at = kernels_.first_above(product_.get() + item.slot * width, 0, count, bound_);
      if (at == count) {
        *kept++ = item;
      } else {
        reliable_[item.row] = true;
        remember(row_of(at));
      }
    }
    left_.erase(kept, left_.end());
    if (4 * round_up(int64_t(left_.size()), kernels_.left) <= 3 * padded_) repack();
  }

  void compare_listed(const std::vector<int64_t>& rows) {
    const int64_t total = int64_t(rows.size());
    for (int64_t first = 0; first < total && !left_.empty(); first += kBankTile) {
      const int64_t count = std::min(kBankTile, total - first);
      pack_listed(bank_.rows, bank_.scale.data(), rows.data() + first, count, kernels_.right, gathered_.get());
      compare(gathered_.get(), count, [&](int64_t at) { return rows[first + at]; });
    }
  }

  // Marks the rows that the bound leaves possible and compares with every query's most promising one.
  void bound_candidates() {
    repack();
    bank_.project(panels_.get(), padded_, projection_.get());
    const std::vector<float> ones(padded_, 1.0f);
    pack({projection_.get(), padded_, kWidth, kWidth}, ones.data(), 0, padded_, kernels_.left, projected_.get());
    possible_.assign(left_.size() * words_, 0);
    best_.assign(left_.size(), -1);
    highest_.assign(left_.size(), -INFINITY);
    const float limit = bound_ - kSlack;
    for (int64_t first = 0; first < bank_.rows.rows; first += kBankTile) {
      const int64_t count = std::min(kBankTile, bank_.rows.rows - first);
      const int64_t width = round_up(count, kernels_.right);
      multiply(kernels_, projected_.get(), padded_, bank_.projected_tile(first), width, kWidth, product_.get());
      for (const Query& item : left_) {
        const float* values = product_.get() + item.slot * width;
        const auto next = [&](int64_t from) { return kernels_.first_above(values, from, count, limit); };
        for (int64_t at = next(0); at < count; at = next(at + 1)) {
          possible_[item.slot * words_ + (first + at) / 64] |= uint64_t(1) << ((first + at) % 64);
          if (values[at] <= highest_[item.slot]) continue;
          highest_[item.slot] = values[at];
          best_[item.slot] = first + at;
        }
      }
    }
    marks_ = left_;
    std::vector<int64_t> promising;
    for (const int64_t row : best_)
      if (row >= 0) promising.push_back(row);
    std::sort(promising.begin(), promising.end());
    promising.erase(std::unique(promising.begin(), promising.end()), promising.end());
    compare_listed(promising);
  }

  // Bank rows possible for any query that is left, ascending.
  std::vector<int64_t> possible_rows() const {
    std::vector<uint64_t> any(words_);
    size_t at = 0;
    for (const Query& marked : marks_) {  // both lists are in the order of the tile
      if (at == left_.size() || left_[at].row != marked.row) continue;
      ++at;
      for (int64_t word = 0; word < words_; ++word) any[word] |= possible_[marked.slot * words_ + word];
    }
    std::vector<int64_t> rows;
    for (int64_t word = 0; word < words_; ++word)
      for (uint64_t bits = any[word]; bits; bits &= bits - 1)
        rows.push_back(word * 64 + __builtin_ctzll(bits));
    return rows;
  }

  const Kernels& kernels_;
  const Rows query_;
  const float* scale_;
  const Bank& bank_;
  const float bound_;
  bool* reliable_;
  const Scratch panels_, gathered_, product_, projection_, projected_;
  const int64_t words_;
  int64_t padded_ = 0, pause_ = 0;
  std::vector<Query> left_, marks_;
  std::vector<int64_t> list_, recent_, best_;
  std::vector<float> highest_;
  std::vector<uint64_t> possible_;
};

}  // namespace

void confidence_filter(const Rows& query, const Rows& bank, double threshold, const bool* valid, bool* reliable) {
  std::fill(reliable, reliable + query.rows, false);
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < query.rows; ++row)
    if (!valid || valid[row]) rows.push_back(row);
  if (rows.empty() || bank.rows == 0) return;

  const Kernels& kernels = cpu::kernels();
  const float bound = largest_outside(static_cast<float>(threshold));
  const std::vector<float> scale = parallel_inverse_norms(query);
  const Bank packed(kernels, bank, bound);
  const int64_t total = int64_t(rows.size());
  parallel_tasks((total + kQueryTile - 1) / kQueryTile, [&](const auto& next) {
    Tile tile(kernels, query, scale.data(), packed, bound, reliable);
    for (int64_t task; (task = next()) >= 0;) {
      const int64_t first = task * kQueryTile;
      tile.run(rows.data() + first, std::min(kQueryTile, total - first));
    }
  });
}

}  // namespace cfr::cpu
