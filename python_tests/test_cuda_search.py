"""topk_cosine and confidence_filter on CUDA: the sources run on the CPU, and on a device where one is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import emulated
import pytest
import torch
from tolerances import TOLERANCE
from torch import Tensor
from torch.nn.functional import normalize

from cfr_fast.ops import confidence_filter, reference, topk_cosine

Op = Callable[..., tuple[Tensor, ...]]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def on_device(op: Callable[..., Tensor | tuple[Tensor, ...]], *arguments: object) -> tuple[Tensor, ...]:
    """The public op on a side stream, twice with the same bits."""
    moved = [item.cuda() if isinstance(item, Tensor) else item for item in arguments]
    runs = []
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(2):
            got = op(*moved)
            runs.append([item.cpu().clone() for item in (got if isinstance(got, tuple) else (got,))])
    for first, second in zip(*runs, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
    return tuple(runs[0])


WHERE = [
    "emulated",
    pytest.param(
        "device", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
    ),
]


@pytest.fixture(autouse=True)
def portable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiles that every device has; test_cuda_hopper.py is about the others."""
    monkeypatch.setenv("CFR_FAST_HOPPER", "0")


@pytest.fixture(params=["bf16", "tf32"])
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=WHERE)
def topk(request: pytest.FixtureRequest, precision: str) -> Op:
    if request.param == "device":
        return lambda *arguments: on_device(partial(topk_cosine, precision=precision), *arguments)
    return lambda query, keys, k: emulated.ops().topk_cosine_cuda(query, keys, k, precision, 0)


@pytest.fixture(params=WHERE)
def unreliable(request: pytest.FixtureRequest) -> Callable[..., Tensor]:
    if request.param == "device":
        return lambda *arguments: on_device(confidence_filter, *arguments)[0]
    return lambda query, bank, threshold, valid=None: emulated.ops().confidence_filter_cuda(
        query, bank, threshold, valid, 0
    )


def assert_topk(topk: Op, query: Tensor, keys: Tensor, k: int) -> Tensor:
    """Against float64: similarities close, and every index a row of that similarity, none twice."""
    similarity, index = topk(query, keys, k)
    wanted, _ = reference.topk_cosine(query.double(), keys.double(), k)
    unit_query, unit_keys = normalize(query.double(), dim=1), normalize(keys.double(), dim=1)
    gathered = (unit_query[:, None] * unit_keys[index]).sum(dim=2)
    torch.testing.assert_close(similarity.double(), wanted, **TOLERANCE["topk_cosine"])
    torch.testing.assert_close(gathered, wanted, **TOLERANCE["topk_cosine"])
    assert (similarity.diff(dim=1) <= 0).all()
    assert all(len(row.unique()) == k for row in index)
    return index


@pytest.mark.parametrize(
    ("n", "m", "d", "k"),
    [
        (1, 1, 1, 1),
        (3, 7, 0, 2),
        (3, 255, 33, 3),  # below, at and above tiles of 128 queries, 256 keys, 64 columns
        (2, 256, 64, 32),
        (5, 257, 65, 3),
        (2, 20, 1152, 1),
        (127, 33, 17, 1),
        (129, 40, 17, 5),
        (3, 600, 20, 32),  # longer lists, cut several times
        (4, 1030, 20, 3),  # split over the keys
    ],
)
def test_topk_sizes(topk: Op, n: int, m: int, d: int, k: int) -> None:
    assert_topk(topk, randn(n, d), randn(m, d, seed=1), k)


def test_topk_equal_keys_tie_and_the_lower_index_wins(topk: Op) -> None:
    """All queries end in the exhaustive search: no bound tells equal keys apart."""
    keys, query = randn(1, 40).expand(300, 40).contiguous(), randn(3, 40, seed=1)
    similarity, index = topk(query, keys, 32)
    assert torch.equal(index, torch.arange(32).expand(3, 32))
    assert (similarity == similarity[:, :1]).all()


def test_topk_duplicates(topk: Op) -> None:
    keys, query = randn(90, 40), randn(4, 40, seed=1)
    _, alone = topk(query, keys, 1)
    similarity, index = topk(query, torch.cat([keys, keys, 4 * keys]), 3)
    assert (similarity == similarity[:, :1]).all()
    assert torch.equal(index, alone + torch.tensor([0, 90, 180]))


def test_topk_similarities_have_the_same_bits_whichever_kernel_decides(topk: Op) -> None:
    """Forty copies of each key leave no room for a bound: these queries are searched exhaustively."""
    query, keys = randn(3, 70), randn(20, 70, seed=1)
    alone = topk(query, keys, 1)
    among = topk(query, keys.repeat(40, 1), 1)
    assert all(map(torch.equal, alone, among))


@pytest.mark.parametrize("noise", [1e-3, 1e-5])
def test_topk_differences_that_bfloat16_does_not_see(topk: Op, noise: float) -> None:
    query = randn(3, 70)
    keys = query[:1] + noise * randn(150, 70, seed=1)
    assert_topk(topk, torch.cat([query, -query[:1]]), keys, 3)


def test_topk_values_that_are_not_finite_zero_or_huge(topk: Op) -> None:
    query, keys = randn(7, 40), randn(290, 40, seed=1)
    query[1], query[2, 7], query[3], query[4] = 0, torch.nan, 1e25 * query[3], 1e-20 * query[4]
    keys[3], keys[5], keys[280, 3] = 0, keys[5] * 1e30, torch.nan
    similarity, index = topk(query, keys, 4)
    wanted, rows = reference.topk_cosine(query.double(), keys.double(), 4)
    torch.testing.assert_close(similarity.double(), wanted, equal_nan=True, **TOLERANCE["topk_cosine"])
    assert torch.equal(index, rows)
    keys[:40, 0] = torch.inf  # more such keys than a list holds
    assert torch.equal(topk(query, keys, 4)[1], torch.arange(4).expand(7, 4))


def test_topk_strides_and_nothing_outside_the_views(topk: Op) -> None:
    query, keys = randn(5, 38), randn(70, 38, seed=1)
    expected = topk(query, keys, 3)
    padded = torch.full((72, 45), torch.nan)
    padded[1:-1, 3:-4] = keys
    assert all(map(torch.equal, topk(query.T.contiguous().T, padded[1:-1, 3:-4], 3), expected))


def nearest(query: Tensor, bank: Tensor) -> Tensor:
    return 1 - (normalize(query.double(), dim=1) @ normalize(bank.double(), dim=1).T).amax(dim=1)


def threshold_in_a_gap(query: Tensor, bank: Tensor, share: float) -> float:
    """A threshold near the wanted share of reliable rows that no rounding reaches."""
    ordered = nearest(query, bank).sort().values
    ordered = torch.cat([ordered[:1] - 0.1, ordered, ordered[-1:] + 0.1])
    at = round(share * (len(ordered) - 2))
    around = ordered[max(0, at - 3) : at + 4]
    gap = int(around.diff().argmax())
    return float(around[gap : gap + 2].mean())


@pytest.mark.parametrize(
    ("n", "m", "d", "share"),
    [
        (1, 1, 1, 0.5),
        (127, 255, 33, 0.8),
        (5, 256, 64, 0.0),
        (129, 257, 65, 0.9),
        (3, 30, 1152, 0.5),
        (140, 1030, 40, 0.5),  # three phases
        (9, 1030, 20, 0.3),  # few queries: shared among blocks
    ],
)
def test_filter_sizes(unreliable: Callable[..., Tensor], n: int, m: int, d: int, share: float) -> None:
    query, bank = randn(n, d), randn(m, d, seed=1)
    query = query + bank[:1] * randn(n, 1, seed=2).abs()  # some near, some far
    threshold = threshold_in_a_gap(query, bank, share)
    expected = reference.confidence_filter(query.double(), bank.double(), threshold)
    got = unreliable(query, bank, threshold)
    assert got.dtype == torch.int64
    assert torch.equal(got, expected)


def test_filter_valid_rows_only(unreliable: Callable[..., Tensor]) -> None:
    query, bank = randn(270, 33), randn(20, 33, seed=1)
    valid = randn(270, seed=5) > 0.3
    threshold = threshold_in_a_gap(query, bank, 0.5)
    expected = reference.confidence_filter(query.double(), bank.double(), threshold, valid)
    assert 0 < len(expected) < int(valid.sum())
    assert torch.equal(unreliable(query, bank, threshold, valid), expected)
    assert torch.equal(unreliable(query, bank, threshold, valid.repeat_interleave(2)[::2]), expected)
    assert torch.equal(unreliable(query, bank[:0], threshold, valid), valid.nonzero()[:, 0])
    assert torch.equal(unreliable(query, bank[:0], threshold), torch.arange(270))
    assert unreliable(query, bank, 0.0, torch.zeros_like(valid)).numel() == 0
    assert torch.equal(unreliable(query, bank, -1.0, torch.ones_like(valid)), torch.arange(270))
    assert unreliable(query[:0], bank, threshold).numel() == 0


@pytest.mark.parametrize("rows", [20, 80])
def test_filter_decides_in_float32_what_bfloat16_cannot(unreliable: Callable[..., Tensor], rows: int) -> None:
    """All bank rows lie near the threshold, the nearest last: remembered, or too many and all searched."""
    query = randn(6, 70)
    bank = randn(1, 70, seed=1) + 3e-4 * randn(rows, 70, seed=2)
    similarity = normalize(query[:1].double(), dim=1) @ normalize(bank.double(), dim=1).T
    bank = bank[similarity[0].argsort()]
    best, second = 1 - similarity.topk(2).values[0]
    for threshold in (float(2 * best - second), float((best + second) / 2)):
        expected = reference.confidence_filter(query.double(), bank.double(), threshold)
        assert (0 in expected) == (threshold < best)
        assert torch.equal(unreliable(query, bank, threshold), expected)


def test_filter_thresholds_at_exact_values(unreliable: Callable[..., Tensor]) -> None:
    bank = torch.eye(4)[:2]
    query = torch.stack([bank[0], -bank[0], bank[0] - bank[0], torch.eye(4)[3]])
    for threshold in (-torch.inf, -1.0, 0.0, 1e-30, 0.5, 1.0, 1.0 + 2e-7, 1.5, 2.0, 3.0, torch.inf):
        expected = reference.confidence_filter(query, bank, threshold)
        assert torch.equal(unreliable(query, bank, threshold), expected)


def test_filter_nan_counts_as_near(unreliable: Callable[..., Tensor]) -> None:
    query, bank = randn(9, 40), randn(30, 40, seed=1)
    query[7, 3], query[2, 1] = torch.nan, torch.inf
    for threshold in (-torch.inf, 0.0, 0.6):
        got = unreliable(query, bank, threshold)
        assert torch.equal(got, reference.confidence_filter(query, bank, threshold))
        assert not {2, 7} & set(got.tolist())
    bank[29, 0] = torch.nan
    assert unreliable(query, bank, 0.0).numel() == 0


@pytest.mark.parametrize("kib", ["99", "227"])
def test_rings_of_two_and_of_four_stages(kib: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on devices with less and with more shared memory than the 163 KiB that are emulated else."""
    monkeypatch.setenv("CFR_EMULATED_SHARED", kib)
    query, keys = randn(3, 150), randn(257, 150, seed=1)
    assert_topk(lambda *given: emulated.ops().topk_cosine_cuda(*given, "bf16", 0), query, keys, 3)
    assert_topk(lambda *given: emulated.ops().topk_cosine_cuda(*given, "tf32", 0), query, keys, 3)
    threshold = threshold_in_a_gap(query, keys, 0.5)
    expected = reference.confidence_filter(query.double(), keys.double(), threshold)
    assert torch.equal(emulated.ops().confidence_filter_cuda(query, keys, threshold, None, 0), expected)


def test_a_second_run_on_used_memory_has_the_same_bits() -> None:
    query, keys = randn(5, 40), randn(300, 40, seed=1)
    keys[200:] = keys[0]
    first = [emulated.ops().topk_cosine_cuda(query, keys, 3, "tf32", 0) for _ in range(2)]
    assert all(map(torch.equal, *first))
    second = [emulated.ops().confidence_filter_cuda(query, keys, 0.7, None, 0) for _ in range(2)]
    assert torch.equal(*second)
