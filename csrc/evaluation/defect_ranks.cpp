// Defect pixels are few: they are sorted. Every other pixel then looks up its place among their distinct scores,
// from a table that is indexed by the leading bits of the score and a few steps of binary search. That is faster
// than sorting all pixels, and needs no memory for them.
#include "defect_ranks.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "radix_sort.h"
#include "regions.h"

namespace cfr::evaluation {
namespace {

constexpr int64_t kBlock = 1024;  // scores taken at a time
constexpr int kLanes = 8;         // searches that run beside each other, so that they wait for memory together

template <class Score>
using KeyOf = std::conditional_t<sizeof(Score) == 4, uint32_t, uint64_t>;

// Unsigned integers in the order of the scores; −0 and 0 give the same.
template <class Score>
KeyOf<Score> key_of(Score score) {
  using Key = KeyOf<Score>;
  constexpr Key kSign = Key{1} << (8 * sizeof(Key) - 1);
  Key bits;
  std::memcpy(&bits, &score, sizeof bits);
  return bits & kSign ? Key(0) - bits : bits + kSign;
}

template <class Key>
struct Defect {
  Key key;
  double share;  // 1 / size of its region
};

// Counts scores that come in any order by their place among ascending `distinct` keys less `lowest`, the first.
template <class Score>
class Lookup {
 public:
  using Key = KeyOf<Score>;

  Lookup(std::vector<Key> distinct, Key lowest)
      : distinct_(std::move(distinct)),
        lowest_(lowest),
        range_(distinct_.back()),
        counts_(2 * distinct_.size()) {
    const size_t count = distinct_.size();
    while ((range_ >> shift_) > count) ++shift_;
    first_.resize((range_ >> shift_) + 2);
    size_t most = 0;
    for (size_t cell = 0, at = 0; cell + 1 < first_.size(); ++cell) {
      first_[cell] = at;
      while (at < count && distinct_[at] >> shift_ == cell) ++at;
      most = std::max(most, at - first_[cell]);
    }
    for (stride_ = 1; stride_ <= most / 2; stride_ *= 2) {}
    distinct_.resize(count + 2 * stride_, std::numeric_limits<Key>::max());  // steps may look beyond the end
  }

  void add(const Score* scores, int64_t count) {
    for (int64_t part; count > 0; scores += part, count -= part) {
      part = std::min(count, kBlock);
      Key keys[kBlock + kLanes];
      int64_t filled = 0, below = 0, equal = 0;
      for (int64_t i = 0; i < part; ++i) {
        const Key key = key_of(scores[i]);
        below += key < lowest_;
        equal += key == lowest_;
        keys[filled] = key - lowest_;
        filled += Key(keys[filled] - 1) < range_;  // wraps around for the lowest and below
      }
      counts_[0] += below;
      counts_[1] += equal;
      const int64_t padding = (kLanes - filled % kLanes) % kLanes;
      std::fill_n(keys + filled, padding, Key{0});
      for (int64_t i = 0; i < filled; i += kLanes) look_up(keys + i);
      counts_[1] -= padding;
    }
  }

  void finish(DefectRanks& out) const {
    int64_t sum = 0;
    for (size_t i = 0; i < counts_.size(); i += 2) {
      sum += counts_[i];
      out.below.push_back(sum);
      sum += counts_[i + 1];
      out.up_to.push_back(sum);
    }
  }

 private:
  // The first distinct score that is not below the key, by binary search with steps that need no branch.
  void look_up(const Key* keys) {
    size_t at[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) at[lane] = first_[keys[lane] >> shift_];
    for (size_t stride = stride_; stride > 0; stride /= 2)
      for (int lane = 0; lane < kLanes; ++lane)
        at[lane] += distinct_[at[lane] + stride - 1] < keys[lane] ? stride : 0;
    for (int lane = 0; lane < kLanes; ++lane) ++counts_[2 * at[lane] + (distinct_[at[lane]] == keys[lane])];
  }

  std::vector<Key> distinct_;
  const Key lowest_, range_;
  std::vector<int64_t> counts_;  // for each: what lies between the one before and it; what equals it
  int shift_ = 0;                // bits that scores of one cell may differ in: about one distinct score a cell
  std::vector<size_t> first_;    // distinct score of every cell
  size_t stride_ = 1;            // first step of the search: twice as many are not in any cell
};

}  // namespace

template <class Score>
Defects<Score> defects_of(const Image<Score>& image) {
  std::vector<Run> runs;
  Defects<Score> out;
  out.regions = append_runs(image.defect, image.height, image.width, runs);
  for (const Run& run : runs) {
    const Score* line = image.scores + run.row * image.width;
    out.scores.insert(out.scores.end(), line + run.begin, line + run.end);
    out.shares.insert(out.shares.end(), size_t(run.end - run.begin), 1.0 / double(run.region_size));
  }
  return out;
}

template <class Score>
struct Ranking<Score>::State {
  DefectRanks ranks;
  Lookup<Score> lookup;
};

template <class Score>
Ranking<Score>::Ranking(const Score* scores, const double* shares, int64_t count, int64_t regions) {
  using Key = KeyOf<Score>;
  Key lowest = std::numeric_limits<Key>::max(), highest = 0;
  for (int64_t i = 0; i < count; ++i) {
    lowest = std::min(lowest, key_of(scores[i]));
    highest = std::max(highest, key_of(scores[i]));
  }
  std::vector<Defect<Key>> defects(count), spare(count);
  for (int64_t i = 0; i < count; ++i) defects[i] = {Key(key_of(scores[i]) - lowest), shares[i]};
  const Defect<Key>* sorted = radix_sort(defects.data(), spare.data(), count, Key(highest - lowest),
                                         [](const Defect<Key>& defect) { return defect.key; });
  DefectRanks ranks;
  std::vector<Key> distinct;
  for (int64_t i = 0; i < count; ++i) {
    if (distinct.empty() || distinct.back() != sorted[i].key) {
      distinct.push_back(sorted[i].key);
      ranks.count.push_back(0);
      ranks.overlap.push_back(0);
    }
    ++ranks.count.back();
    ranks.overlap.back() += sorted[i].share / double(regions);
  }
  state_.reset(new State{std::move(ranks), Lookup<Score>(std::move(distinct), lowest)});
}

template <class Score>
Ranking<Score>::~Ranking() = default;

template <class Score>
void Ranking<Score>::add(const Image<Score>& image) {
  const int64_t pixels = image.height * image.width;
  for (int64_t begin = 0, end; begin < pixels; begin = end) {
    end = next_set(image.defect, begin, pixels);
    state_->lookup.add(image.scores + begin, end - begin);
    while (end < pixels && image.defect[end] != 0) ++end;
  }
}

template <class Score>
DefectRanks Ranking<Score>::finish() {
  state_->lookup.finish(state_->ranks);
  return std::move(state_->ranks);
}

template Defects<float> defects_of(const Image<float>&);
template Defects<double> defects_of(const Image<double>&);
template class Ranking<float>;
template class Ranking<double>;

}  // namespace cfr::evaluation
