from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from cfr_fast.ops import confidence_filter, loader, reference


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low_rank(n: int, m: int, d: int, noise: float = 0.2) -> tuple[Tensor, Tensor]:
    """Rows near a subspace of few directions, where the bound prunes."""
    waves = randn(20, d, seed=7)
    rows = randn(n + m, 20, seed=8) @ waves / 20**0.5 + noise * randn(n + m, d, seed=9)
    return rows[:n], rows[n:]


def nearest(query: Tensor, bank: Tensor) -> Tensor:
    return 1 - (normalize(query.double(), dim=1) @ normalize(bank.double(), dim=1).T).amax(dim=1)


def assert_right(query: Tensor, bank: Tensor, share: float = 0.8, valid: Tensor | None = None) -> None:
    """The float64 mask, at a threshold in the widest gap near the wanted share of reliable rows."""
    threshold = 0.5
    if len(query) and len(bank):
        ordered = nearest(query, bank).sort().values
        at = round(share * (len(ordered) - 1))
        around = ordered[max(0, at - 5) : at + 6]
        gap = int(around.diff().argmax()) if len(around) > 1 else 0
        threshold = float(around[gap : gap + 2].mean())
        if len(around) == 1 or around.diff().max() < 1e-5:  # no gap there: rounding would decide
            threshold = float(ordered[-1]) + 0.1
    expected = reference.confidence_filter(query.double(), bank.double(), threshold, valid)
    got = confidence_filter(query, bank, threshold, valid)
    assert got.dtype == torch.int64
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("n", "m", "d"),
    [
        (0, 5, 33),
        (5, 0, 33),
        (1, 1, 1),
        (3, 7, 0),
        (95, 191, 33),  # below, at and above the tiles of 96 queries and 192 bank rows
        (96, 192, 384),
        (97, 193, 385),
        (41, 257, 257),
        (7, 17, 1152),
    ],
)
def test_sizes(kernels: str, n: int, m: int, d: int) -> None:
    assert_right(randn(n, d), randn(m, d, seed=1))


@pytest.mark.parametrize(
    ("n", "m", "d"), [(1, 256, 256), (95, 257, 256), (97, 385, 385), (300, 700, 1152), (193, 255, 300)]
)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
def test_where_the_bound_prunes(kernels: str, n: int, m: int, d: int, share: float) -> None:
    assert_right(*low_rank(n, m, d), share=share)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 250),
    m=st.integers(0, 500),
    d=st.integers(1, 600),
    share=st.floats(0, 1),
    noise=st.sampled_from([0.0, 0.05, 0.3, 2.0]),
)
def test_any_size(n: int, m: int, d: int, share: float, noise: float) -> None:
    valid = randn(n, seed=3) > -0.7
    query, bank = low_rank(n, m, d, noise)
    assert_right(query, bank, share, valid)


def test_rows_of_the_bank_are_near_it(kernels: str) -> None:
    _, bank = low_rank(0, 300, 400)
    assert confidence_filter(3 * bank, bank, 1e-5).numel() == 0
    both = torch.cat([bank, -bank])
    assert confidence_filter(both, bank, 1e-5).tolist() == list(range(300, 600))


@pytest.mark.parametrize(
    "threshold", [-torch.inf, -1.0, 0.0, 1e-30, 0.5, 1.0, 1.0 + 2e-7, 1.5, 2.0, 3.0, torch.inf]
)
def test_thresholds_at_exact_values(kernels: str, threshold: float) -> None:
    bank = torch.eye(4)[:2]
    query = torch.stack([bank[0], -bank[0], bank[0] - bank[0], torch.eye(4)[3]])
    both = confidence_filter(query, bank, threshold), reference.confidence_filter(query, bank, threshold)
    assert torch.equal(*both)


def test_valid_rows_only(kernels: str) -> None:
    query, bank = low_rank(211, 300, 300)
    valid = randn(211, seed=5) > 0.3
    assert_right(query, bank, 0.4, valid)
    assert torch.equal(confidence_filter(query, bank[:0], 0.3, valid), valid.nonzero()[:, 0])
    assert confidence_filter(query, bank, 0.0, torch.zeros_like(valid)).numel() == 0
    strided = valid.repeat_interleave(2)[::2]
    assert torch.equal(
        confidence_filter(query, bank, 0.3, strided), confidence_filter(query, bank, 0.3, valid)
    )


def test_nan_counts_as_near_as_in_the_reference(kernels: str) -> None:
    query, bank = low_rank(100, 300, 300)
    query[7, 3] = torch.nan
    got = confidence_filter(query, bank, 0.0)
    assert torch.equal(got, reference.confidence_filter(query, bank, 0.0))
    assert 7 not in got.tolist()
    bank[0] = torch.nan
    assert confidence_filter(query, bank, 0.0).numel() == 0


def test_strides_and_nothing_outside_the_views(kernels: str) -> None:
    query, bank = low_rank(97, 300, 300)
    threshold = float(nearest(query, bank).median())
    expected = confidence_filter(query, bank, threshold)
    assert 0 < len(expected) < 97

    def inside_nan(matrix: Tensor) -> Tensor:
        padded = torch.full((matrix.shape[0] + 16, matrix.shape[1] + 16), torch.nan)
        view = padded[8:-8, 8:-8]
        view.copy_(matrix)
        return view

    assert torch.equal(confidence_filter(inside_nan(query), inside_nan(bank), threshold), expected)
    assert torch.equal(confidence_filter(query.T.contiguous().T, bank.T.contiguous().T, threshold), expected)


def test_a_threshold_at_a_distance_itself_decides_alike_in_every_run(kernels: str) -> None:
    """The threshold is one row's own float32 distance: threads, tiling and pruning must not matter."""
    query, bank = low_rank(400, 500, 385)
    similarity = torch.ops.cfr_fast.topk_cosine(query, bank, 1)[0][:, 0]
    threads = torch.get_num_threads()
    try:
        for row in (3, 150, 399):
            threshold = float(1 - similarity[row])
            expected = (1 - similarity >= threshold).nonzero()[:, 0]
            assert row in expected.tolist()
            for count in (1, 2, 5, 2):
                torch.set_num_threads(count)
                assert torch.equal(confidence_filter(query, bank, threshold), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("d", [33, 385, 768, 1152])
@pytest.mark.parametrize("spread", [1e-6, 1e-4, 1e-2])
def test_thresholds_closer_to_distances_than_fixed_point_can_tell(
    kernels: str, d: int, spread: float
) -> None:
    base = randn(1, d)
    query = base + spread * randn(101, d, seed=1)
    bank = base + 0.2 * randn(1, d, seed=2) + spread * randn(400, d, seed=3)
    distance = 1 - torch.ops.cfr_fast.topk_cosine(query, bank, 1)[0][:, 0]
    for chosen in distance.sort().values[::10]:
        for threshold in (chosen, *(chosen.nextafter(torch.tensor(end)) for end in (-9.0, 9.0))):
            got = confidence_filter(query, bank, float(threshold))
            assert torch.equal(got, (distance >= threshold).nonzero()[:, 0])


def test_one_huge_element_makes_the_steps_coarse(kernels: str) -> None:
    query, bank = low_rank(150, 500, 300)
    query[::2, 7], bank[::3, 7] = 1e5, -1e5
    for share in (0.3, 0.7):
        assert_right(query, bank, share)
    assert_right(query, bank[::3], 0.3)


def test_rows_that_have_no_fixed_point(kernels: str) -> None:
    query, bank = low_rank(120, 400, 300)
    query[5], query[6] = query[5] * 1e37, 0
    bank[9], bank[100] = bank[9] * 1e37, 0
    for share in (0.1, 0.5, 0.9):
        assert_right(query, bank, share)
    query[7, 3] = torch.inf
    assert 7 not in confidence_filter(query, bank, 0.0).tolist()
    bank[9, 3] = torch.inf
    assert confidence_filter(query, bank, 0.0).numel() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_go_through_the_reference(dtype: torch.dtype) -> None:
    query, bank = randn(9, 40).to(dtype), randn(30, 40, seed=1).to(dtype)
    both = confidence_filter(query, bank, 0.7), reference.confidence_filter(query, bank, 0.7)
    assert torch.equal(*both)


def test_opcheck() -> None:
    loader.ready()
    valid = torch.tensor([True, False, True, True, True, True])
    for arguments in [(randn(6, 40), randn(9, 40, seed=1), 0.8), (randn(6, 4), randn(9, 4), 0.1, valid)]:
        torch.library.opcheck(torch.ops.cfr_fast.confidence_filter.default, arguments)


def test_compiles_to_one_graph() -> None:
    query, bank = low_rank(97, 300, 300)
    threshold = float(nearest(query, bank).median())

    def gathered(query: Tensor, bank: Tensor) -> Tensor:
        return query[confidence_filter(query, bank, threshold)] * 2

    compiled = torch.compile(gathered, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(query, bank), gathered(query, bank))


def test_the_op_itself_checks_its_arguments() -> None:
    if loader.load() is None:
        pytest.skip("no native library here")
    op, query = torch.ops.cfr_fast.confidence_filter, torch.zeros(2, 3)
    with pytest.raises(RuntimeError, match="confidence_filter: bank: expected as many columns as query"):
        op(query, torch.zeros(4, 5), 0.5)
    with pytest.raises(RuntimeError, match="confidence_filter: valid: expected one element a row of query"):
        op(query, query, 0.5, torch.ones(3, dtype=torch.bool))
    with pytest.raises(RuntimeError, match="confidence_filter: threshold: expected a cosine distance"):
        op(query, query, float("nan"))
