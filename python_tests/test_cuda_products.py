"""Products of the tensor cores' twins beside float32 ones: the error that the kernels allow them."""

from __future__ import annotations

from pathlib import Path

import emulated

PROBE = """
#include "mma.h"
#include "unit_rows.h"

#include <cstdio>
#include <random>

using namespace cfr::cuda;
constexpr int kRows = 16, kKeys = 8, kCols = 256;
static float left[kRows][kCols], right[kKeys][kCols];  // unit rows
static float most_error, bound;

// One warp, operands straight from memory: element c of a row is number c % kParts of register c / kParts.
template <class Element>
void compare() {
  constexpr int kParts = 4 / sizeof(typename Element::Bits);
  const int lane = threadIdx.x % 32;
  const auto packed = [](const float* row, int place) {
    uint32_t bits = 0;
    for (int part = 0; part < kParts; ++part)
      bits |= uint32_t(Element::round(row[place * kParts + part])) << 16 * part;
    return bits;
  };
  float sum[4] = {};
  for (int first = 0; first < kCols / kParts; first += 8) {
    const int low = first + lane % 4, high = low + 4;
    const uint32_t a[4] = {packed(left[lane / 4], low), packed(left[lane / 4 + 8], low),
                           packed(left[lane / 4], high), packed(left[lane / 4 + 8], high)};
    Element::multiply_add(sum, a, packed(right[lane / 4], low), packed(right[lane / 4], high));
  }
  const auto residual = [](const float* row) {
    double rest = 0;
    for (int c = 0; c < kCols; ++c)
      rest += std::pow(double(row[c]) - Element::value(Element::round(row[c])), 2);
    return float(std::sqrt(rest));
  };
  for (int i = 0; i < 4; ++i) {
    const float *a = left[lane / 4 + i / 2 * 8], *b = right[lane % 4 * 2 + i % 2];
    const float error = std::fabs(exact_cosine(a, 1, b, 1, kCols, false) - sum[i]);
    const float allowed = cosine_error(residual(a), residual(b), kCols);
    if (error > allowed) throw std::runtime_error("a product errs by more than its bound");
    most_error = std::max(most_error, error);
    bound = std::max(bound, allowed);
  }
}

template <class Element>
void report() {
  most_error = bound = 0;
  emulation::launch(dim3(1), dim3(32), 0, compare<Element>);
  std::printf("%.9g %.9g ", most_error, bound);
}

int main() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto fill = [&](float* row) {
    double square = 0;
    for (int c = 0; c < kCols; ++c) square += std::pow(double(row[c] = normal(random)), 2);
    for (int c = 0; c < kCols; ++c) row[c] /= float(std::sqrt(square));
  };
  for (auto& row : left) fill(row);
  for (auto& row : right) fill(row);
  report<Bfloat16>();
  report<Tf32>();
  for (float x : {1.0f, 1.0f + 0x1p-11f, 1.0f + 0x3p-11f, -0.3f})
    std::printf("%.13g ", Tf32::value(Tf32::round(x)));
}
"""


DRAW = """
// Fills the matrices `left` and `right`.
void draw() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (auto& row : left)
    for (float& value : row) value = normal(random);
  for (auto& row : right)
    for (float& value : row) value = normal(random);
}
"""

TILES = (
    """
#include "tile_choice.h"
#include "unit_rows.cu"

#include <cstdio>
#include <random>

using namespace cfr;
using namespace cfr::cuda;
constexpr int kQueries = 200, kKeys = 700, kCols = 150;
static float left[kQueries][kCols], right[kKeys][kCols];
static float product[kQueries][kKeys];

// By one block: a walk over all keys, then, for other queries, walks that stop after their first tile.
template <class Tiles>
void walk(UnitRows query, UnitRows keys) {
  unsigned char* const shared = reinterpret_cast<unsigned char*>(emulation::dynamic_memory());
  Tiles tiles(shared);
  for (int query_tile = 0; query_tile < 2; ++query_tile) {
    const auto record = [&](int tile, typename Tiles::Sums& sum) {
      for (int r = 0; r < Tiles::Sums::kRuns; ++r)
        for (int c = 0; c < Tiles::Sums::kLength; ++c) {
          const int row = query_tile * kTileQueries + Tiles::Sums::row(r);
          const int key = tile * kTileKeys + Tiles::Sums::col(r, c);
          if (row < kQueries && key < kKeys) product[row][key] += sum.at(r, c);
        }
      return query_tile == 0 || tile == 2;
    };
    const auto row_at = [&](int place) { return query_tile * kTileQueries + place; };
    tiles.walk(query, query_tile, row_at, keys, 0, 3, record);
    if (query_tile == 0) continue;
    tiles.walk(query, query_tile, row_at, keys, 1, 3, record);
    tiles.walk(query, query_tile, row_at, keys, 2, 3, record);
  }
}

template <class Tiles>
void examine(Precision precision) {
  std::vector<char> memory(4 << 20, char(0x7f));
  Carver carver(reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 255) / 256 * 256));
  const Rows queries{left[0], kQueries, kCols, kCols}, bank{right[0], kKeys, kCols, kCols};
  const UnitRows query = carve_unit_rows(carver, precision, queries, kTileQueries, Tiles::kTiled);
  const UnitRows keys = carve_unit_rows(carver, precision, bank, kTileKeys, Tiles::kTiled);
  unit_rows(queries, query, nullptr);
  unit_rows(bank, keys, nullptr);
  std::memset(product, 0, sizeof product);
  emulation::launch(dim3(1), dim3(kTileThreads), Tiles::kSharedBytes, [&] { walk<Tiles>(query, keys); });
  int wrong = 0;
  for (int row = 0; row < kQueries; ++row)
    for (int key = 0; key < kKeys; ++key) {
      const float cosine =
          exact_cosine(left[row], query.scale[row], right[key], keys.scale[key], kCols, false);
      const float error = cosine_error(query.residual[row], keys.residual[key], kCols);
      wrong += !(std::fabs(product[row][key] - cosine) <= error);
    }
  std::printf("%d ", wrong);
}

"""
    + DRAW
    + """
int main() {
  draw();
  examine<MmaTiles<Bfloat16, 3>>(Precision::bf16);
  examine<MmaTiles<Tf32, 2>>(Precision::tf32);
  examine<WgmmaTiles<Bfloat16>>(Precision::bf16);
}
"""
)


SPLIT = (
    """
#include "split_product.cu"

#include <cstdio>
#include <random>

using namespace cfr;
using namespace cfr::cuda;
constexpr int kLeft = 130, kRight = 260, kCols = 70, kReal = 129;
static float left[kLeft][kCols], right[kRight][kCols], bias[kRight], product[kLeft][kRight];

// The largest error beside the lengths of both rows; rows behind the real ones are zero, the NaN row is NaN.
double examine(bool hopper) {
  TileDevice device(0, Precision::bf16, 0);
  device.wgmma = hopper;
  std::vector<char> memory(4 << 20, char(0x7f));
  Carver carver(reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 255) / 256 * 256));
  const UnitRows a = carve_split_rows(carver, kLeft, kCols, kTileQueries, hopper);
  const UnitRows b = carve_split_rows(carver, kRight, kCols, kTileKeys, hopper);
  const std::vector<float> factor(kRight, 3.0f);
  split_rows({left[0], kLeft, kCols, kCols}, nullptr, a, nullptr);
  split_rows({right[0], kRight, kCols, kCols}, factor.data(), b, nullptr);
  const int64_t count = kReal + 10;
  const SplitProduct task = {a, b, kLeft, kRight, kRight, 0.5f, bias, &count, 10, 1, 0, product[0]};
  multiply_split(device, task, nullptr, "");
  double most = 0;
  for (int i = 0; i < kLeft; ++i)
    for (int j = 0; j < kRight; ++j) {
      double exact = 0, a_square = 1e-300, b_square = 1e-300;
      for (int c = 0; c < kCols; ++c) {
        exact += double(left[i][c]) * right[j][c];
        a_square += double(left[i][c]) * left[i][c];
        b_square += double(right[j][c]) * right[j][c];
      }
      const double wanted = i < kReal ? 1.5 * exact + bias[j] : 0;
      const bool number = i >= kReal || (i != 7 && j != 9);
      if (std::isnan(product[i][j]) == number) return 1;
      if (!number) continue;
      most = std::max(most, std::fabs(product[i][j] - wanted) / std::sqrt(a_square * b_square));
    }
  return most;
}

"""
    + DRAW
    + """
int main() {
  draw();
  for (float& value : left[3]) value *= 1e15f;  // far outside what fp16 holds
  for (float& value : left[4]) value *= 1e-15f;
  for (float& value : left[5]) value = 0;
  for (int c = 0; c < kCols; ++c) left[6][c] *= c % 2 ? 1e-4f : 1.0f;
  left[7][2] = INFINITY;
  right[9][3] = NAN;
  std::printf("%.9g %.9g", examine(false), examine(true));
}
"""
)


def test_split_numbers_multiply_nearly_as_float32(tmp_path: Path) -> None:
    """Also where a row is far outside fp16; a row with a number that is not finite gives NaN."""
    portable, hopper = map(float, emulated.run_probe(SPLIT, tmp_path))
    assert 0 < portable < 5e-7
    assert 0 < hopper < 5e-7


def test_every_product_of_a_tile_is_near_its_cosine_also_after_an_early_stop(tmp_path: Path) -> None:
    assert emulated.run_probe(TILES, tmp_path) == ["0", "0", "0"]


def test_products_err_by_less_than_their_bound_and_tf32_by_far_less(tmp_path: Path) -> None:
    bf16, bf16_bound, tf32, tf32_bound, *rounded = map(float, emulated.run_probe(PROBE, tmp_path))
    assert 0 < tf32 < bf16 / 4
    assert 4 * tf32_bound < bf16_bound
    assert rounded == [1.0, 1.0, 1.0 + 2**-9, -0.300048828125]  # to nearest, ties to even
