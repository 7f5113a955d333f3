from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import farthest_point_sample, loader, reference


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth_field(dim: int, size: int = 64) -> Tensor:
    """Features as extractors give them: a coarse grid of tokens, interpolated."""
    tokens = torch.nn.functional.avg_pool2d(randn(1, dim, 10, 10), 3, 1)
    return torch.nn.functional.interpolate(tokens, (size, size), mode="bilinear")[0].flatten(1).T.contiguous()


def assert_right(points: Tensor, count: int, initial: Tensor | None = None) -> None:
    """The picks of the plain loop; and in float64 every one is the farthest, up to rounding."""
    picks = farthest_point_sample(points, count, initial)
    assert picks.dtype == torch.int64
    assert torch.equal(picks, reference.farthest_point_sample(points, count, initial))
    exact = points.double()
    anchor = exact.new_full((len(points),), torch.inf) if initial is None else initial.double().square()
    for step, pick in enumerate(picks):
        if step > 0 or initial is not None:
            assert anchor[pick] >= anchor.max() * (1 - 1e-6)
        anchor = torch.minimum(anchor, (exact - exact[pick]).square().sum(dim=1))


@pytest.mark.parametrize("covered", [False, True])
@pytest.mark.parametrize(
    ("n", "d", "count"),
    [
        (1, 1, 1),
        (7, 0, 3),
        (63, 2, 63),
        (2047, 3, 100),  # below, at and above a chunk of 2048 rows
        (2048, 33, 50),
        (2049, 128, 60),
        (4100, 6, 40),
        (501, 1152, 80),
        (300, 8, 300),
    ],
)
def test_sizes(kernels: str, n: int, d: int, count: int, covered: bool) -> None:
    initial = randn(n, seed=2).abs() * d**0.5 if covered else None
    assert_right(randn(n, d, seed=1), count, initial)


@pytest.mark.parametrize("dim", [3, 128])
def test_smooth_features(kernels: str, dim: int) -> None:
    points = smooth_field(dim)
    assert_right(points, 300)
    assert_right(points, 300, (points - points[7]).norm(dim=1))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 300), d=st.integers(0, 70), levels=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_any_size_with_many_ties(n: int, d: int, levels: int, seed: int) -> None:
    points = (randn(n, d, seed=seed) * levels).round()
    assert torch.equal(farthest_point_sample(points, n), reference.farthest_point_sample(points, n))


def test_duplicates_repeat_the_lowest_covered_row(kernels: str) -> None:
    points = randn(3, 40).repeat(1000, 1)
    picks = farthest_point_sample(points, 10)
    assert set(picks[:3].tolist()) == {0, 1, 2}
    assert (picks[3:] == 0).all()


def test_views(kernels: str) -> None:
    points, initial = randn(500, 33), randn(500, seed=1).abs()
    expected = farthest_point_sample(points, 60, initial)
    padded = torch.full((516, 49), torch.nan)
    padded[8:-8, 8:-8] = points
    twice = initial.repeat_interleave(2)[::2]
    assert torch.equal(farthest_point_sample(padded[8:-8, 8:-8], 60, twice), expected)
    assert torch.equal(farthest_point_sample(points.T.contiguous().T, 60, initial), expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
@pytest.mark.parametrize("where", ["points", "initial"])
def test_values_that_are_no_distances(kernels: str, where: str, value: float) -> None:
    points, initial = randn(2100, 9), randn(2100, seed=1).abs()
    if where == "points":
        points[2060, 3] = points[11, 0] = value
    else:
        initial[2060] = value
    expected = reference.farthest_point_sample(points, 20, initial)
    assert torch.equal(farthest_point_sample(points, 20, initial), expected)


def test_same_picks_whatever_the_run_the_threads_and_the_variant() -> None:
    library = loader.load()
    if library is None:
        pytest.skip("no native library here")
    points = smooth_field(40)
    first = farthest_point_sample(points, 300)
    threads, variant = torch.get_num_threads(), library.module.current_cpu_kernels()
    try:
        for name in library.module.cpu_kernels():
            library.module.use_cpu_kernels(name)
            for count in (1, 2, 5):
                torch.set_num_threads(count)
                assert torch.equal(farthest_point_sample(points, 300), first)
    finally:
        torch.set_num_threads(threads)
        library.module.use_cpu_kernels(variant)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_go_through_the_reference(dtype: torch.dtype) -> None:
    points = randn(50, 4).to(dtype)
    assert torch.equal(farthest_point_sample(points, 20), reference.farthest_point_sample(points, 20))


def test_opcheck() -> None:
    loader.ready()
    op = torch.ops.cfr_fast.farthest_point_sample.default
    torch.library.opcheck(op, (randn(30, 4), 5))
    torch.library.opcheck(op, (randn(30, 4), 5, randn(30, seed=1)))


def test_compiles_to_one_graph() -> None:
    points = randn(50, 4).requires_grad_()

    def centers(points: Tensor) -> Tensor:
        return points[farthest_point_sample(points, 7)]

    compiled = torch.compile(centers, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(points), centers(points))


@pytest.mark.parametrize(
    ("argument", "points", "count", "initial"),
    [
        ("points", torch.zeros(3), 1, None),
        ("count", torch.zeros(3, 2), 4, None),
        ("count", torch.zeros(3, 2), -1, None),
        ("initial_distance", torch.zeros(3, 2), 1, torch.zeros(2)),
        ("initial_distance", torch.zeros(3, 2), 1, torch.zeros(3, dtype=torch.float64)),
    ],
)
def test_bad_input_names_the_argument(
    argument: str, points: Tensor, count: int, initial: Tensor | None
) -> None:
    with pytest.raises(InputError, match=f"^{argument}: expected"):
        farthest_point_sample(points, count, initial)
    if loader.load() is not None:
        with pytest.raises(RuntimeError, match=f"farthest_point_sample: {argument}: expected"):
            torch.ops.cfr_fast.farthest_point_sample(points, count, initial)
