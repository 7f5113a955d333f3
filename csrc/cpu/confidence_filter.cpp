// Which queries have no bank row nearer than the threshold: a query leaves as soon as one row satisfies it.
//
// Products in fixed point decide wherever the limit lies outside their error, the exact similarities of
// topk_cosine elsewhere: the answer equals the exhaustive one to the last bit, and what follows only chooses
// which products are worth computing. A tile of queries meets
//   1. the rows that satisfied the last tiles' queries: neighbouring pixels resemble the same row;
//   2. an upper bound of all similarities from a subspace of few directions plus the lengths of the rests
//      (Cauchy–Schwarz), then every query's row of the highest bound;
//   3. the rows that the bound leaves possible for those that remain.
// Where the bound says nothing (a threshold too far or features without dominant directions) the tile meets
// the whole bank in its own order, and is compacted on the way.
#include <algorithm>
#include <cmath>

#include "../cosine_threshold.h"
#include "bounded_bank.h"
#include "parallel.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kBankTile = BoundedBank::kTile, kWidth = BoundedBank::kWidth;
constexpr int64_t kQueryTile = 96;  // queries per tile: the packed tile stays in the second-level cache
constexpr int64_t kRecent = 48;     // satisfying rows remembered from tile to tile
constexpr int64_t kPause = 16;      // tiles without a bound after one whose bound left most rows possible

// One thread's tile of queries, of which ever fewer are left.
class Tile {
 public:
  Tile(const Kernels& kernels, const FixedKernels& fixed, const UnitRows& query, const BoundedBank& bank,
       float bound, bool* reliable)
      : kernels_(kernels),
        fixed_(fixed),
        query_(query),
        bank_(bank),
        bound_(bound),
        reliable_(reliable),
        exact_(fixed, query, bank.unit),
        packed_(kCapacity * fixed_depth(query.rows.cols)),
        gathered_(kBankTile * fixed_depth(query.rows.cols)),
        product_(kCapacity * kBankTile + kOverread),
        bounds_(kCapacity * kBankTile + kOverread),
        panels_(bank.bounded ? kCapacity * query.rows.cols : 0),
        projection_(kCapacity * kWidth),
        projected_(kCapacity * kWidth),
        words_((bank.rows.rows + 63) / 64) {}

  void run(const int64_t* list, int64_t count) {
    left_.clear();
    const std::vector<int64_t>& specials = bank_.unit.specials;
    for (int64_t i = 0; i < count; ++i) {
      const bool whole = query_.special(list[i]);
      const Choice exact{0, int64_t(specials.size()), specials.data()};
      if (any_exact(list[i], whole ? Choice{0, bank_.rows.rows} : exact))
        reliable_[list[i]] = true;
      else if (!whole)
        left_.push_back({list[i]});
    }
    if (left_.empty()) return;
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
    int64_t slot = 0;           // its row of the packed tile
    int32_t low = 0, high = 0;  // products up to `low` do not satisfy it, those above `high` do
  };

  bool any_exact(int64_t query_row, const Choice& rows) {
    if (rows.count) exact_.choose(query_row);
    for (int64_t first = 0; first < rows.count; first += kExactBatch) {
      const int64_t count = std::min(kExactBatch, rows.count - first);
      float similarity[kExactBatch];
      exact_.compare({rows.first + first, count, rows.list ? rows.list + first : nullptr}, similarity);
      for (int64_t i = 0; i < count; ++i)
        if (!(similarity[i] <= bound_)) return true;
    }
    return false;
  }

  void repack() {
    list_.clear();
    for (const Query& item : left_) list_.push_back(item.row);
    const int64_t count = int64_t(list_.size()), cols = query_.rows.cols;
    float residual[kCapacity];
    pack_fixed(fixed_, query_, {0, count, list_.data()}, 0, fixed_.left, packed_.get(), residual);
    padded_ = round_up(count, fixed_.left);
    for (int64_t slot = 0; slot < count; ++slot) {
      Query& item = left_[slot];
      const double scales = double(query_.scale[item.row]) * bank_.unit.lowest_scale, limit = bound_ * scales;
      const double error = fixed_error(residual[slot], bank_.coarsest, scales, cols);
      item = {item.row, slot, floor_to_int32(limit - error), floor_to_int32(limit + error)};
    }
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

  // The first of `count` bank rows found to satisfy the query, else `count`; row_of(i) is the i-th of them.
  template <class RowOf>
  int64_t satisfying(const Query& item, const int32_t* products, int64_t count, const RowOf& row_of) {
    const auto next = [&](int64_t from) { return fixed_.first_above(products, from, count, item.low); };
    doubtful_.clear();
    for (int64_t at = next(0); at < count; at = next(at + 1)) {
      if (bank_.unit.special(row_of(at))) continue;
      if (products[at] > item.high) return at;
      doubtful_.push_back(at);
    }
    for (const int64_t at : doubtful_)
      if (any_exact(item.row, {row_of(at), 1})) return at;
    return count;
  }

  // Drops the queries that one of `count` packed bank rows satisfies.
  template <class RowOf>
  void compare(const int16_t* bank_panels, int64_t count, const RowOf& row_of) {
    const int64_t width = round_up(count, fixed_.right);
    multiply_fixed(fixed_, packed_.get(), padded_, bank_panels, width, query_.rows.cols, product_.get());
    auto kept = left_.begin();
    for (const Query& item : left_) {
      const int64_t at = satisfying(item, product_.get() + item.slot * width, count, row_of);
      if (at == count) {
        *kept++ = item;
      } else {
        reliable_[item.row] = true;
        remember(row_of(at));
      }
    }
    left_.erase(kept, left_.end());
    if (4 * round_up(int64_t(left_.size()), fixed_.left) <= 3 * padded_) repack();
  }

  void compare_listed(const std::vector<int64_t>& rows) {
    const int64_t total = int64_t(rows.size());
    for (int64_t first = 0; first < total && !left_.empty(); first += kBankTile) {
      const int64_t count = std::min(kBankTile, total - first);
      pack_fixed(fixed_, bank_.unit, {0, count, rows.data() + first}, bank_.unit.lowest_scale, fixed_.right,
                 gathered_.get(), nullptr);
      compare(gathered_.get(), count, [&](int64_t at) { return rows[first + at]; });
    }
  }

  // Marks the rows that the bound leaves possible and compares with every query's most promising one.
  void bound_candidates() {
    if (left_.size() < list_.size()) repack();
    const int64_t padded = round_up(int64_t(list_.size()), kernels_.left);
    pack_listed(query_.rows, query_.inverse_norm.data(), list_.data(), int64_t(list_.size()), kernels_.left,
                panels_.get());
    bank_.project(panels_.get(), padded, projection_.get());
    const std::vector<float> ones(padded, 1.0f);
    pack({projection_.get(), padded, kWidth, kWidth}, ones.data(), 0, padded, kernels_.left, projected_.get());
    possible_.assign(left_.size() * words_, 0);
    best_.assign(left_.size(), -1);
    highest_.assign(left_.size(), -INFINITY);
    const float limit = bound_ - BoundedBank::kSlack;
    for (int64_t first = 0; first < bank_.rows.rows; first += kBankTile) {
      const int64_t count = std::min(kBankTile, bank_.rows.rows - first);
      const int64_t width = round_up(count, kernels_.right);
      multiply(kernels_, projected_.get(), padded, bank_.projected_tile(first), width, kWidth, bounds_.get());
      for (const Query& item : left_) {
        const float* values = bounds_.get() + item.slot * width;
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
  const FixedKernels& fixed_;
  const UnitRows& query_;
  const BoundedBank& bank_;
  const float bound_;
  bool* reliable_;
  Exact exact_;
  const Aligned<int16_t> packed_, gathered_;
  const Aligned<int32_t> product_;
  const Scratch bounds_, panels_, projection_, projected_;
  const int64_t words_;
  int64_t padded_ = 0, pause_ = 0;
  std::vector<Query> left_, marks_;
  std::vector<int64_t> list_, recent_, best_, doubtful_;
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
  const FixedKernels& fixed = fixed_kernels();
  const float bound = largest_outside(static_cast<float>(threshold));
  const UnitRows unit_query(query);
  const BoundedBank packed(kernels, fixed, bank, bound);
  const int64_t total = int64_t(rows.size());
  parallel_tasks((total + kQueryTile - 1) / kQueryTile, [&](const auto& next) {
    Tile tile(kernels, fixed, unit_query, packed, bound, reliable);
    for (int64_t task; (task = next()) >= 0;) {
      const int64_t first = task * kQueryTile;
      tile.run(rows.data() + first, std::min(kQueryTile, total - first));
    }
  });
}

}  // namespace cfr::cpu
