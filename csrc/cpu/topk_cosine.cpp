// Top-k cosine without the N × M matrix: tiles of the product in fixed point are searched while they are in
// cache, and the exact similarities of the few rows that may belong to the answer decide.
#include <algorithm>
#include <cmath>

#include "fixed_point.h"
#include "parallel.h"
#include "topk_list.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kKeyBlock = 7680;  // keys packed at a time: bounds the memory, costs one barrier each
constexpr int64_t kKeyTile = 96;     // keys per tile of the product, a multiple of every panel width
constexpr int64_t kQueryTile = 96;   // queries per tile: the packed tile stays in the second-level cache
constexpr int64_t kPending = 96;     // candidates that wait for their exact similarity

// Takes up rows by their exact similarities.
void insert(const Best& best, const Exact& exact, const Choice& choice) {
  float similarity[kPending];
  for (int64_t first = 0; first < choice.count; first += kPending) {
    const int64_t count = std::min(kPending, choice.count - first);
    const Choice part{choice.first + first, count, choice.list ? choice.list + first : nullptr};
    exact.compare(part, similarity);
    for (int64_t i = 0; i < count; ++i) best.insert(similarity[i], part[i]);
  }
}

// One query's candidates in one block of keys. Products that lie below the k-th highest by more than twice
// their error cannot be among the k best; nor can those that lie below the k-th best exact similarity by more
// than it.
class Candidates {
 public:
  void start(const Best& best, int64_t row, double scales, double error) {
    best_ = best;
    row_ = row;
    scales_ = scales;
    error_ = error;
    margin_ = int64_t(2 * error) + 2;
    count_ = 0;
    std::fill(highest_, highest_ + best.k, INT32_MIN);
    bound_ = INT32_MIN;
    raise_to_exact();
  }

  // products[i] belongs to key first + i.
  void search(const FixedKernels& kernels, Exact& exact, const UnitRows& keys, const int32_t* products,
              int64_t count, int64_t first) {
    const auto next = [&](int64_t from) { return kernels.first_above(products, from, count, bound_); };
    for (int64_t at = next(0); at < count; at = next(at + 1)) {
      if (keys.special(first + at)) continue;
      if (count_ == kPending) make_room(exact);
      products_[count_] = products[at];
      rows_[count_++] = first + at;
      raise(products[at]);
    }
  }

  void finish(Exact& exact) {
    drop();
    exact.choose(row_);
    insert(best_, exact, {0, count_, rows_});
    count_ = 0;
    raise_to_exact();
  }

 private:
  void raise(int32_t product) {
    const int64_t k = best_.k;
    if (product <= highest_[k - 1]) return;
    int64_t at = k - 1;
    for (; at > 0 && product > highest_[at - 1]; --at) highest_[at] = highest_[at - 1];
    highest_[at] = product;
    bound_ = int32_t(std::max<int64_t>(bound_, highest_[k - 1] - margin_));
  }

  void raise_to_exact() {
    const float last = best_.values[best_.k - 1];
    bound_ = std::max(bound_, std::isnan(last) ? INT32_MAX : floor_to_int32(last * scales_ - error_ - 1));
  }

  void drop() {
    int64_t kept = 0;
    for (int64_t i = 0; i < count_; ++i)
      if (products_[i] > bound_) {
        products_[kept] = products_[i];
        rows_[kept++] = rows_[i];
      }
    count_ = kept;
  }

  void make_room(Exact& exact) {
    drop();
    if (2 * count_ > kPending) finish(exact);
  }

  Best best_;
  int64_t row_, count_, margin_;
  double scales_, error_;
  int32_t bound_;
  int32_t highest_[kMaxTopk], products_[kPending];
  int64_t rows_[kPending];
};

}  // namespace

void topk_cosine(const Rows& query_rows, const Rows& key_rows, int64_t k, float* similarity, int64_t* index) {
  const FixedKernels& kernels = fixed_kernels();
  const UnitRows query(query_rows), keys(key_rows);
  const int64_t cols = query_rows.cols, depth = fixed_depth(cols);
  const auto best = [&](int64_t row) { return Best{k, similarity + row * k, index + row * k}; };

  const int64_t share = (query_rows.rows + thread_count() - 1) / thread_count();
  const int64_t query_tile = round_up(std::min(kQueryTile, share), kernels.left);
  const int64_t tiles = (query_rows.rows + query_tile - 1) / query_tile;
  const Aligned<int16_t> packed_keys(round_up(std::min(kKeyBlock, key_rows.rows), kernels.right) * depth);
  std::vector<float> key_residual(std::min(kKeyBlock, key_rows.rows));
  for (int64_t block = 0; block < key_rows.rows; block += kKeyBlock) {
    const int64_t block_end = std::min(block + kKeyBlock, key_rows.rows);
    const auto packed_tile = [&](int64_t first) { return packed_keys.get() + (first - block) * depth; };

    parallel_tasks((block_end - block + kKeyTile - 1) / kKeyTile, [&](const auto& next) {
      for (int64_t task; (task = next()) >= 0;) {
        const int64_t first = block + task * kKeyTile, count = std::min(kKeyTile, block_end - first);
        pack_fixed(kernels, keys, {first, count}, keys.lowest_scale, kernels.right, packed_tile(first),
                   key_residual.data() + (first - block));
      }
    });
    const float coarsest = *std::max_element(key_residual.data(), key_residual.data() + (block_end - block));

    parallel_tasks(tiles, [&](const auto& next) {
      const Aligned<int16_t> packed_query(query_tile * depth);
      const Aligned<int32_t> product(query_tile * kKeyTile + kOverread);
      Exact exact(kernels, query, keys);
      std::vector<Candidates> candidates(query_tile);
      std::vector<float> residual(query_tile);
      for (int64_t task; (task = next()) >= 0;) {
        const int64_t row = task * query_tile, rows = std::min(query_tile, query_rows.rows - row);
        pack_fixed(kernels, query, {row, rows}, 0, kernels.left, packed_query.get(), residual.data());
        for (int64_t i = 0; i < rows; ++i) {
          const bool whole = query.special(row + i);
          if (block == 0) {
            best(row + i).clear();
            exact.choose(row + i);
            const Choice specials{0, int64_t(keys.specials.size()), keys.specials.data()};
            insert(best(row + i), exact, whole ? Choice{0, key_rows.rows} : specials);
          }
          if (whole) continue;
          const double scales = double(query.scale[row + i]) * keys.lowest_scale;
          const double error = fixed_error(residual[i], coarsest, scales, cols);
          candidates[i].start(best(row + i), row + i, scales, error);
        }
        for (int64_t first = block; first < block_end; first += kKeyTile) {
          const int64_t count = std::min(kKeyTile, block_end - first);
          const int64_t width = round_up(count, kernels.right);
          multiply_fixed(kernels, packed_query.get(), round_up(rows, kernels.left), packed_tile(first), width,
                         cols, product.get());
          for (int64_t i = 0; i < rows; ++i)
            if (!query.special(row + i))
              candidates[i].search(kernels, exact, keys, product.get() + i * width, count, first);
        }
        for (int64_t i = 0; i < rows; ++i)
          if (!query.special(row + i)) candidates[i].finish(exact);
      }
    });
  }
}

}  // namespace cfr::cpu
