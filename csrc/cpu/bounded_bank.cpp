#include "bounded_bank.h"

#include <algorithm>
#include <cmath>

#include "parallel.h"

namespace cfr::cpu {
namespace {

constexpr int64_t kTile = BoundedBank::kTile, kWidth = BoundedBank::kWidth, kDirections = kWidth - 1;
constexpr int64_t kSample = 256;  // bank rows that choose the directions

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

template <class Body>
void over_tiles(int64_t rows, const Body& body) {
  parallel_tasks((rows + kTile - 1) / kTile, [&](const auto& next) {
    for (int64_t task; (task = next()) >= 0;) body(task * kTile, std::min(kTile, rows - task * kTile));
  });
}

}  // namespace

BoundedBank::BoundedBank(const Kernels& kernels, const FixedKernels& fixed, const Rows& rows, float limit)
    : rows(rows),
      unit(rows),
      kernels_(kernels),
      packed_(round_up(rows.rows, fixed.right) * fixed_depth(rows.cols)),
      directions_(kWidth * rows.cols),
      projected_(round_up(rows.rows, kernels.right) * kWidth) {
  std::vector<float> residual(rows.rows);
  over_tiles(rows.rows, [&](int64_t first, int64_t count) {
    pack_fixed(fixed, unit, {first, count}, unit.lowest_scale, fixed.right,
               packed_.get() + first * fixed_depth(rows.cols), residual.data() + first);
  });
  coarsest = *std::max_element(residual.begin(), residual.end());
  // Projecting has to be much cheaper than the products that it saves.
  if (rows.rows >= kSample && rows.cols >= 4 * kWidth) bounded = choose_directions() < limit;
}

void BoundedBank::project(const float* panels, int64_t padded, float* out) const {
  multiply(kernels_, panels, padded, directions_.get(), kWidth, rows.cols, out);
  for (int64_t i = 0; i < padded; ++i) {
    float* row = out + i * kWidth;
    const float rest = 1 - static_cast<float>(dot(row, row, kDirections));
    row[kDirections] = std::sqrt(std::max(0.0f, rest) + kSlack);
  }
}

double BoundedBank::choose_directions() {
  const int64_t cols = rows.cols;
  const float* scale = unit.inverse_norm.data();
  std::vector<int64_t> sample(kSample), start(kDirections);
  for (int64_t i = 0; i < kSample; ++i) sample[i] = i * rows.rows / kSample;
  for (int64_t i = 0; i < kDirections; ++i) start[i] = i * rows.rows / kDirections;
  const int64_t left = round_up(kDirections, kernels_.left), right = round_up(kSample, kernels_.right);
  const Scratch a(left * cols), b(right * cols), weights(left * right), basis(kWidth * cols);
  pack_listed(rows, scale, start.data(), kDirections, kernels_.left, a.get());
  pack_listed(rows, scale, sample.data(), kSample, kernels_.right, b.get());
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
  const std::vector<float> ones(kTile, 1.0f);
  pack({basis.get(), kWidth, cols, cols}, ones.data(), 0, kWidth, kernels_.right, directions_.get());

  std::vector<double> rests((rows.rows + kTile - 1) / kTile);
  over_tiles(rows.rows, [&](int64_t first, int64_t count) {
    const int64_t padded = round_up(count, kernels_.left);
    const Scratch panels(padded * cols), out(padded * kWidth);
    pack(rows, scale + first, first, count, kernels_.left, panels.get());
    project(panels.get(), padded, out.get());
    pack({out.get(), count, kWidth, kWidth}, ones.data(), 0, count, kernels_.right,
         projected_.get() + first * kWidth);
    for (int64_t i = 0; i < count; ++i) {
      const double rest = out.get()[i * kWidth + kDirections];
      rests[first / kTile] += rest * rest;
    }
  });
  double sum = 0;
  for (const double rest : rests) sum += rest;
  return sum / rows.rows;
}

}  // namespace cfr::cpu
