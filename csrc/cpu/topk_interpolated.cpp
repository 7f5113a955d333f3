// Top-k cosine of pixels whose features are linear combinations of few tokens: products are taken between tokens and
// keys, and a pixel's similarities are the same combination of theirs.
#include <algorithm>
#include <cmath>

#include "interpolation.h"
#include "norms.h"
#include "topk_list.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kKeyBlock = 1536;  // keys at a time: tokens × keys stay in the last-level cache
constexpr int64_t kKeyTile = 384;    // keys per product, a multiple of every panel width
constexpr int64_t kTokenTile = 96;
constexpr int64_t kPixelTile = 64;

}  // namespace

void topk_interpolated(const Rows& tokens, const Interpolation& entries, const Rows& keys, int64_t k,
                       int64_t* index) {
  const Kernels& kernels = cpu::kernels();
  const Interpolate one = interpolate();
  const int64_t cols = tokens.cols, pixels = entries.pixels;
  const std::vector<float> key_scale = parallel_inverse_norms(keys), ones(tokens.rows, 1.0f);
  const int64_t block = round_up(std::min(kKeyBlock, keys.rows), kernels.right);
  const int64_t token_tile = round_up(kTokenTile, kernels.left);
  const int64_t token_tiles = (tokens.rows + token_tile - 1) / token_tile, padded = token_tiles * token_tile;
  const Scratch packed_keys(block * cols), product(padded * block);
  std::vector<float> values(pixels * k);
  const auto best = [&](int64_t pixel) { return Best{k, values.data() + pixel * k, index + pixel * k}; };
  for (int64_t pixel = 0; pixel < pixels; ++pixel) best(pixel).clear();

  for (int64_t start = 0; start < keys.rows; start += kKeyBlock) {
    const int64_t end = std::min(start + kKeyBlock, keys.rows);
    const int64_t key_tiles = (end - start + kKeyTile - 1) / kKeyTile;
    const auto rows_in = [&](int64_t first) { return std::min(kKeyTile, end - first); };
    parallel_tasks(key_tiles, [&](const auto& next) {
      for (int64_t task; (task = next()) >= 0;) {
        const int64_t first = start + task * kKeyTile;
        pack(keys, key_scale.data() + first, first, rows_in(first), kernels.right,
             packed_keys.get() + (first - start) * cols);
      }
    });
    parallel_tasks(token_tiles, [&](const auto& next) {
      const Scratch panels(token_tile * cols);
      for (int64_t task; (task = next()) >= 0;) {
        const int64_t row = task * token_tile, rows = std::min(token_tile, tokens.rows - row);
        pack(tokens, ones.data(), row, rows, kernels.left, panels.get());
        for (int64_t first = start; first < end; first += kKeyTile) {
          const int64_t width = round_up(rows_in(first), kernels.right);
          multiply(kernels, panels.get(), round_up(rows, kernels.left), packed_keys.get() + (first - start) * cols,
                   width, cols, product.get() + (first - start) * padded + row * width);
        }
      }
    });
    parallel_tasks((pixels + kPixelTile - 1) / kPixelTile, [&](const auto& next) {
      const Scratch row(kKeyTile + kOverread);
      for (int64_t task; (task = next()) >= 0;)
        for (int64_t first = start; first < end; first += kKeyTile) {
          const int64_t count = rows_in(first);
          const Rows similarity{product.get() + (first - start) * padded, tokens.rows, count,
                                round_up(count, kernels.right)};
          const int64_t last = std::min(pixels, (task + 1) * kPixelTile);
          for (int64_t pixel = task * kPixelTile; pixel < last; ++pixel) {
            one(similarity, entries, pixel, row.get());
            const Best list = best(pixel);
            const auto next = [&](int64_t from) {
              return kernels.first_above(row.get(), from, count, list.values[k - 1]);
            };
            for (int64_t at = next(0); at < count; at = next(at + 1)) list.insert(row.get()[at], first + at);
          }
        }
    });
  }
}

}  // namespace cfr::cpu
