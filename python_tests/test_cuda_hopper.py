"""Tiles by Hopper's own instructions: the answers of the portable ones, and twins that notice mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import emulated
import pytest
import torch
from test_cuda_search import assert_topk, on_device, randn, threshold_in_a_gap
from torch import Tensor

from cfr_fast.ops import confidence_filter, reference, topk_cosine

NO_HOPPER = not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0)
WHERE = [
    "emulated",
    pytest.param("device", marks=pytest.mark.skipif(NO_HOPPER, reason="no CUDA device here of 9.0")),
]


@pytest.fixture(params=WHERE)
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("CFR_FAST_HOPPER", raising=False)  # the default there
    return str(request.param)


@pytest.fixture
def topk(where: str) -> Callable[..., tuple[Tensor, ...]]:
    if where == "device":
        return lambda *arguments: on_device(topk_cosine, *arguments)
    return lambda query, keys, k: emulated.ops().topk_cosine_cuda(query, keys, k, "bf16", 0)


@pytest.fixture
def unreliable(where: str) -> Callable[..., Tensor]:
    if where == "device":
        return lambda *arguments: on_device(confidence_filter, *arguments)[0]
    return lambda query, bank, threshold: emulated.ops().confidence_filter_cuda(
        query, bank, threshold, None, 0
    )


@pytest.mark.parametrize(
    ("n", "m", "d", "k"),
    [
        (1, 1, 1, 1),
        (127, 255, 33, 3),  # below, at and above tiles of 128 queries, 256 keys, pieces of 64 columns
        (3, 256, 64, 32),
        (129, 257, 65, 3),
        (2, 300, 400, 5),  # pieces of a tile, and the ring beyond its end
        (4, 1030, 20, 3),  # split over the keys
    ],
)
def test_topk_sizes(topk: Callable[..., tuple[Tensor, ...]], n: int, m: int, d: int, k: int) -> None:
    assert_topk(topk, randn(n, d), randn(m, d, seed=1), k)


def test_topk_equal_keys_and_values_that_are_not_finite(topk: Callable[..., tuple[Tensor, ...]]) -> None:
    query, keys = randn(5, 40), randn(290, 40, seed=1)
    keys[100:160], keys[285] = keys[:60], keys[3]
    query[1], query[2, 7], keys[5, 3], keys[280, 3] = 0, torch.nan, torch.inf, torch.nan
    similarity, index = topk(query, keys, 4)
    portable = emulated.ops().topk_cosine_cuda(query, keys, 4, "tf32", 0)
    torch.testing.assert_close(similarity, portable[0], rtol=0, atol=2e-6, equal_nan=True)
    assert torch.equal(index, portable[1])


@pytest.mark.parametrize(
    ("n", "m", "d", "share"),
    [
        (1, 1, 1, 0.5),
        (129, 257, 65, 0.9),
        (300, 1030, 40, 0.5),  # three phases, each with fewer queries, and blocks that stop early
        (9, 1030, 300, 0.3),  # few queries: shared among blocks
    ],
)
def test_filter_sizes(unreliable: Callable[..., Tensor], n: int, m: int, d: int, share: float) -> None:
    query, bank = randn(n, d), randn(m, d, seed=1)
    query = query + bank[:1] * randn(n, 1, seed=2).abs()  # some near, some far
    threshold = threshold_in_a_gap(query, bank, share)
    expected = reference.confidence_filter(query.double(), bank.double(), threshold)
    assert torch.equal(unreliable(query, bank, threshold), expected)


def test_filter_stops_while_copies_are_under_way(unreliable: Callable[..., Tensor]) -> None:
    """All are satisfied by the first of a phase's two tiles; a block has more than one tile of queries."""
    query, bank = randn(400, 200), randn(900, 200, seed=1)
    bank[256:512] = query[:256]
    query[256:] = query[:144] + 0.01 * query[256:]
    assert unreliable(query, bank, 0.5).numel() == 0


PROBE = """
#include "hopper.h"

#include <cstdio>

using namespace cfr::cuda;
constexpr int kBytes = 64 * 128, kAllBytes = kBytes + 256 * 128;  // 64 and 256 rows of one piece
alignas(16) static unsigned char memory[kAllBytes];
static int left_value(int row, int k) { return (row * 3 + k * 5) % 7 - 3; }
static int right_value(int row, int k) { return (row * 5 + k * 2) % 9 - 4; }

enum class Mistake { none, distance, swizzle, early_read, early_fill, no_wait };
static Mistake mistake;
static int wrong;

// One group: a [64, 64] · b [256, 64], both filled by one bulk copy.
void multiply() {
  unsigned char* shared = reinterpret_cast<unsigned char*>(emulation::dynamic_memory());
  shared += (kAtomBytes - shared_address(shared) % kAtomBytes) % kAtomBytes;
  uint64_t* const barrier = reinterpret_cast<uint64_t*>(shared + kAllBytes);
  if (threadIdx.x == 0) {
    start_barrier(barrier, 1);
    announce_barriers();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    arrive_expecting(barrier, kAllBytes);
    bulk_copy(shared, memory, kAllBytes, barrier);
  }
  __syncthreads();
  GroupSums sum = {};
  if (mistake == Mistake::no_wait) {
    const uint32_t start = shared_address(shared);
    multiply_group<Bfloat16>(sum, operand_at(start), operand_at(start + kBytes));
    commit_products();
    wait_products<0>();
  }
  wait_barrier(barrier, 0);
  uint64_t change = 0;
  if (mistake == Mistake::distance) change = uint64_t(1024 >> 4 ^ 512 >> 4) << 32;
  if (mistake == Mistake::swizzle) change = 16 >> 4;
  order_products();
  for (int k = 0; k < 128; k += 32)
    multiply_group<Bfloat16>(sum, operand_at(shared_address(shared) + k) ^ change,
                   operand_at(shared_address(shared) + kBytes + k));
  commit_products();
  if (mistake == Mistake::early_read) wait_products<1>();
  __syncthreads();
  if (mistake == Mistake::early_fill && threadIdx.x == 0) {
    arrive_expecting(barrier, kAllBytes);
    bulk_copy(shared, memory, kAllBytes, barrier);
  }
  __syncthreads();
  float seen[32][4];
  if (mistake == Mistake::early_read) std::memcpy(seen, sum, sizeof sum);
  wait_products<0>();
  if (mistake != Mistake::early_read) std::memcpy(seen, sum, sizeof sum);
  if (mistake == Mistake::early_fill) wait_barrier(barrier, 1);
  for (int j = 0; j < 32; ++j)
    for (int e = 0; e < 4; ++e) {
      const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + e / 2 * 8;
      const int col = 8 * j + 2 * (threadIdx.x % 4) + e % 2;
      int wanted = 0;
      for (int k = 0; k < 64; ++k) wanted += left_value(row, k) * right_value(col, k);
      wrong += !(seen[j][e] == float(wanted));
    }
}

int main() {
  for (int row = 0; row < 64 + 256; ++row)
    for (int k = 0; k < 64; ++k) {
      const uint16_t bits = Bfloat16::round(row < 64 ? left_value(row, k) : right_value(row - 64, k));
      const int place = row < 64 ? row : row - 64;
      std::memcpy(memory + row * 128 + (k / 8 ^ place % 8) * 16 + k % 8 * 2, &bits, 2);
    }
  for (int which = 0; which < 6; ++which) {
    mistake = Mistake(which);
    wrong = 0;
    emulation::launch(dim3(1), dim3(128), kAllBytes + 8 + kAtomBytes, multiply);
    std::printf("%d ", wrong > 0);
  }
}
"""


def test_the_twins_notice_wrong_descriptors_and_what_happens_too_early(tmp_path: Path) -> None:
    assert emulated.run_probe(PROBE, tmp_path) == ["0", "1", "1", "1", "1", "1"]
