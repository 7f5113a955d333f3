// Replacement, both discrepancies, their product and the 5×5 mean, in one pass over the predictions; observed features
// are interpolated from their tokens as they are needed.
#include <algorithm>
#include <vector>

#include "gemm.h"
#include "interpolation.h"
#include "parallel.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kReach = 2;   // pixels on each side of the 5×5 window
constexpr int64_t kChunk = 64;  // feature rows, and rows of the map, handed to a thread at once

const float* row_of(const Rows& matrix, int64_t row) { return matrix.data + row * matrix.stride; }

// Means of 25 with zeros outside, summed directly in double: nothing runs on from one window to the next.
void box_filter(const float* product, int64_t height, int64_t width, int64_t y, float* out) {
  std::vector<double> columns(width + 2 * kReach);
  const int64_t top = std::max<int64_t>(0, y - kReach), bottom = std::min(height - 1, y + kReach);
  for (int64_t line = top; line <= bottom; ++line)
    for (int64_t x = 0; x < width; ++x) columns[x + kReach] += product[line * width + x];
  for (int64_t x = 0; x < width; ++x) {
    double sum = 0;
    for (int64_t step = 0; step <= 2 * kReach; ++step) sum += columns[x + step];
    out[x] = float(sum / 25);
  }
}

}  // namespace

void replace_and_score(const Modality& rgb, const Modality& xyz, const Rows& replacement, const int64_t* replaced,
                       const Masks& masks, float* map) {
  const Kernels& kernels = cpu::kernels();
  const int64_t rows = rgb.predicted.rows;
  std::vector<const float*> predicted(rows);
  for (int64_t row = 0; row < rows; ++row) predicted[row] = row_of(rgb.predicted, row);
  for (int64_t i = 0; i < replacement.rows; ++i) predicted[replaced[i]] = row_of(replacement, i);
  std::vector<int64_t> pixels;
  pixels.reserve(rows);
  for (int64_t pixel = 0; pixel < masks.pixels(); ++pixel)
    if (masks.valid[pixel]) pixels.push_back(pixel);
  const int64_t marked = static_cast<int64_t>(pixels.size());  // rows at most

  std::vector<float> product(masks.pixels());
  const auto chunks = [](int64_t count) { return (count + kChunk - 1) / kChunk; };
  const Interpolate one = interpolate();
  parallel_tasks(chunks(marked), [&](const auto& next) {
    const Scratch scratch(std::max(rgb.predicted.cols, xyz.predicted.cols));
    const auto discrepancy = [&](const Modality& side, const float* prediction, int64_t row) {
      const float* observed = interpolated(one, side.observed_tokens, side.observed, row, scratch.get());
      return kernels.discrepancy(prediction, observed, side.predicted.cols);
    };
    for (int64_t task; (task = next()) >= 0;)
      for (int64_t row = task * kChunk; row < std::min(marked, (task + 1) * kChunk); ++row)
        product[pixels[row]] =
            discrepancy(rgb, predicted[row], row) * discrepancy(xyz, row_of(xyz.predicted, row), row);
  });
  const int64_t lines = masks.images * masks.height;
  parallel_tasks(chunks(lines), [&](const auto& next) {
    for (int64_t task; (task = next()) >= 0;)
      for (int64_t line = task * kChunk; line < std::min(lines, (task + 1) * kChunk); ++line) {
        const int64_t y = line % masks.height;
        box_filter(product.data() + (line - y) * masks.width, masks.height, masks.width, y, map + line * masks.width);
      }
  });
}

}  // namespace cfr::cpu
