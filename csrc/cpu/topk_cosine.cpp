// Top-k cosine without the N × M matrix: tiles of the product are searched while they are in cache.
#include <algorithm>
#include <cmath>

#include "norms.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kKeyBlock = 3840;  // keys packed at a time: bounds the memory, costs one barrier each
constexpr int64_t kKeyTile = 192;    // keys per tile of the product, a multiple of every panel width
constexpr int64_t kQueryTile = 96;   // queries per tile: the packed tile stays in the second-level cache

// torch's order of values: NaN above everything.
bool above(float a, float b) { return a > b || (std::isnan(a) && !std::isnan(b)); }

// Inserts into a descending list of k; a value equal to one in the list goes behind it.
void insert(float* values, int64_t* indices, int64_t k, float value, int64_t index) {
  int64_t at = k;
  while (at > 0 && above(value, values[at - 1])) --at;
  if (at == k) return;
  std::copy_backward(values + at, values + k - 1, values + k);
  std::copy_backward(indices + at, indices + k - 1, indices + k);
  values[at] = value;
  indices[at] = index;
}

void search(const Kernels& kernels, const float* product, int64_t count, int64_t first, int64_t k,
            float* values, int64_t* indices) {
  const auto next = [&](int64_t from) { return kernels.first_above(product, from, count, values[k - 1]); };
  for (int64_t at = next(0); at < count; at = next(at + 1)) insert(values, indices, k, product[at], first + at);
}

}  // namespace

void topk_cosine(const Rows& query, const Rows& keys, int64_t k, float* similarity, int64_t* index) {
  const Kernels& kernels = cpu::kernels();
  const int64_t cols = query.cols;
  const std::vector<float> query_scale = parallel_inverse_norms(query);
  const std::vector<float> key_scale = parallel_inverse_norms(keys);
  std::fill(similarity, similarity + query.rows * k, -INFINITY);
  std::fill(index, index + query.rows * k, 0);

  const int64_t share = (query.rows + thread_count() - 1) / thread_count();
  const int64_t query_tile = round_up(std::min(kQueryTile, share), kernels.left);
  const int64_t tiles = (query.rows + query_tile - 1) / query_tile;
  const Scratch packed_keys(round_up(std::min(kKeyBlock, keys.rows), kernels.right) * cols);
  for (int64_t block = 0; block < keys.rows; block += kKeyBlock) {
    const int64_t block_end = std::min(block + kKeyBlock, keys.rows);
    const auto packed_tile = [&](int64_t first) { return packed_keys.get() + (first - block) * cols; };

    parallel_tasks((block_end - block + kKeyTile - 1) / kKeyTile, [&](const auto& next) {
      for (int64_t task; (task = next()) >= 0;) {
        const int64_t first = block + task * kKeyTile, count = std::min(kKeyTile, block_end - first);
        pack(keys, key_scale.data() + first, first, count, kernels.right, packed_tile(first));
      }
    });

    parallel_tasks(tiles, [&](const auto& next) {
      const Scratch packed_query(query_tile * cols), product(query_tile * kKeyTile + kOverread);
      for (int64_t task; (task = next()) >= 0;) {
        const int64_t row = task * query_tile, rows = std::min(query_tile, query.rows - row);
        pack(query, query_scale.data() + row, row, rows, kernels.left, packed_query.get());
        for (int64_t first = block; first < block_end; first += kKeyTile) {
          const int64_t count = std::min(kKeyTile, block_end - first);
          const int64_t width = round_up(count, kernels.right);
          multiply(kernels, packed_query.get(), round_up(rows, kernels.left), packed_tile(first), width, cols,
                   product.get());
          for (int64_t i = 0; i < rows; ++i)
            search(kernels, product.get() + i * width, count, first, k, similarity + (row + i) * k,
                   index + (row + i) * k);
        }
      }
    });
  }
}

}  // namespace cfr::cpu
