"""Products of the tensor cores' twins beside float32 ones: the error that the kernels allow them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import emulated

from cfr_fast.ops import _build

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


def test_products_err_by_less_than_their_bound_and_tf32_by_far_less(tmp_path: Path) -> None:
    source, program = tmp_path / "probe.cpp", tmp_path / "probe"
    source.write_text(PROBE)
    folder = _build.find_csrc() / "cuda"
    command = [*_build.find_cxx(), "-std=c++17", "-DCFR_EMULATION", f"-I{emulated.HEADERS}", f"-I{folder}"]
    subprocess.run([*command, str(source), "-o", str(program)], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    bf16, bf16_bound, tf32, tf32_bound, *rounded = map(float, done.stdout.split())
    assert 0 < tf32 < bf16 / 4
    assert 4 * tf32_bound < bf16_bound
    assert rounded == [1.0, 1.0, 1.0 + 2**-9, -0.300048828125]  # to nearest, ties to even
