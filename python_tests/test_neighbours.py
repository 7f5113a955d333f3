"""three_nn and knn: same distances, same order, same ties as the reference, to the last bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import knn, loader, reference, three_nn


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_three_right(points: Tensor, centers: Tensor) -> None:
    index, weight = three_nn(points, centers)
    wanted_index, wanted_weight = reference.three_nn(points, centers)
    assert torch.equal(index, wanted_index)
    torch.testing.assert_close(weight, wanted_weight, rtol=3e-7, atol=0, equal_nan=True)


def assert_float64_agrees(points: Tensor, centers: Tensor, k: int) -> None:
    """Distances of what was found against the sorted ones of float64."""
    squared = reference.squared_distances(points.double(), centers.double())
    found = squared.gather(1, knn(points, centers, k))
    torch.testing.assert_close(found, squared.sort(dim=1).values[:, :k], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("n", "g"),
    [(0, 3), (1, 3), (7, 4), (255, 9), (256, 511), (257, 512), (33, 513), (5, 1025), (513, 17)],
)
def test_three_nn_sizes(kernels: str, n: int, g: int) -> None:
    points, centers = randn(n, 3), randn(g, 3, seed=1)
    assert_three_right(points, centers)
    index, weight = three_nn(points, centers)
    squared, _ = reference.squared_distances(centers.double(), points.double()).sort(dim=1)
    inverse = 1 / (squared[:, :3] + 1e-8)
    torch.testing.assert_close(weight.double(), inverse / inverse.sum(1, keepdim=True), rtol=1e-4, atol=1e-6)
    assert (index.dtype, weight.dtype) == (torch.int64, torch.float32)


@pytest.mark.parametrize(
    ("n", "g", "k"),
    [
        (0, 3, 0),
        (5, 0, 3),
        (5, 4, 0),
        (1, 1, 1),
        (7, 5, 7),
        (1023, 3, 17),  # below, at and above a tile of 1024 points
        (1024, 3, 1),
        (1025, 3, 128),
        (4099, 5, 300),
        (3000, 2, 3000),
    ],
)
def test_knn_sizes(kernels: str, n: int, g: int, k: int) -> None:
    points, centers = randn(n, 3), randn(g, 3, seed=1)
    found = knn(points, centers, k)
    assert found.dtype == torch.int64
    assert torch.equal(found, reference.knn(points, centers, k))
    assert_float64_agrees(points, centers, k)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(3, 2500), levels=st.integers(1, 9), k=st.integers(0, 200), seed=st.integers(0, 2**31))
def test_many_ties(n: int, levels: int, k: int, seed: int) -> None:
    points, centers = (randn(n, 3, seed=seed) * levels).round(), randn(6, 3, seed=seed + 1)
    assert torch.equal(knn(points, centers, min(k, n)), reference.knn(points, centers, min(k, n)))
    assert_three_right(centers, points)


@pytest.mark.parametrize("descending", [False, True])
def test_knn_of_ordered_points(kernels: str, descending: bool) -> None:
    points = torch.zeros(5000, 3)
    points[:, 0] = torch.linspace(0, 1, 5000).flip(0) if descending else torch.linspace(0, 1, 5000)
    centers = torch.tensor([[0.0, 0, 0], [0.5, 0, 0]])
    assert torch.equal(knn(points, centers, 100), reference.knn(points, centers, 100))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e25])
def test_knn_puts_what_is_no_distance_last(kernels: str, value: float) -> None:
    points, centers = randn(2100, 3), randn(4, 3, seed=1)
    points[::2, 1], centers[3, 0] = value, value
    for k in (100, 1500, 2100):
        assert torch.equal(knn(points, centers, k), reference.knn(points, centers, k))


def test_three_nn_puts_nan_first_as_the_reference(kernels: str) -> None:
    points, centers = randn(40, 3), randn(600, 3, seed=1)
    centers[[3, 590], 1], points[5] = torch.nan, torch.nan
    assert_three_right(points, centers)


def test_three_nn_beyond_the_range_of_floats(kernels: str) -> None:
    index, weight = three_nn(randn(2, 3), randn(20, 3, seed=1) * 1e30)
    assert index.tolist() == [[0, 1, 2]] * 2
    assert weight.isnan().all()


def test_views(kernels: str) -> None:
    points, centers = randn(500, 3), randn(61, 3, seed=1)
    padded = torch.full((516, 9), torch.nan)
    padded[8:-8, 3:6] = points
    columns = centers.T.contiguous().T
    index, weight = three_nn(padded[8:-8, 3:6], columns)
    wanted = three_nn(points, centers)
    assert torch.equal(index, wanted[0])
    assert torch.equal(weight, wanted[1])
    assert torch.equal(knn(padded[8:-8, 3:6], columns, 20), knn(points, centers, 20))


def test_same_bits_whatever_the_run_the_threads_and_the_variant() -> None:
    library = loader.load()
    if library is None:
        pytest.skip("no native library here")
    points, centers = randn(1500, 3), randn(600, 3, seed=1)
    first = (*three_nn(points, centers), knn(points, centers, 50))
    threads, variant = torch.get_num_threads(), library.module.current_cpu_kernels()
    try:
        for name in library.module.cpu_kernels():
            library.module.use_cpu_kernels(name)
            for count in (1, 2, 5):
                torch.set_num_threads(count)
                again = (*three_nn(points, centers), knn(points, centers, 50))
                assert all(map(torch.equal, again, first))
    finally:
        torch.set_num_threads(threads)
        library.module.use_cpu_kernels(variant)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_go_through_the_reference(dtype: torch.dtype) -> None:
    points, centers = randn(50, 3).to(dtype), randn(9, 3, seed=1).to(dtype)
    assert all(map(torch.equal, three_nn(points, centers), reference.three_nn(points, centers)))
    assert torch.equal(knn(points, centers, 5), reference.knn(points, centers, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_carry_no_gradient(dtype: torch.dtype) -> None:
    points = randn(5, 3).to(dtype).requires_grad_()
    _, weight = three_nn(points, randn(4, 3).to(dtype))
    assert not weight.requires_grad


def test_opcheck() -> None:
    loader.ready()
    points, centers = randn(30, 3), randn(9, 3, seed=1)
    torch.library.opcheck(torch.ops.cfr_fast.three_nn.default, (points, centers))
    torch.library.opcheck(torch.ops.cfr_fast.knn.default, (points, centers, 5))


def test_compiles_to_one_graph() -> None:
    points, centers, tokens = randn(50, 3), randn(9, 3, seed=1), randn(9, 6, seed=2).requires_grad_()

    def interpolate(points: Tensor, centers: Tensor, tokens: Tensor) -> Tensor:
        index, weight = three_nn(points, centers)
        groups = points[knn(points, centers, 4)].mean(dim=1)
        return torch.cat([(tokens[index] * weight[..., None]).sum(dim=1), groups[index[:, 0]]], dim=1)

    compiled = torch.compile(interpolate, fullgraph=True, backend="aot_eager")
    wanted, got = interpolate(points, centers, tokens), compiled(points, centers, tokens)
    assert torch.equal(got, wanted)
    (gradient,) = torch.autograd.grad(got.sum(), tokens)
    assert gradient.shape == tokens.shape


@pytest.mark.parametrize(
    ("argument", "points", "centers", "k"),
    [
        ("points", torch.zeros(3), torch.zeros(4, 3), 1),
        ("points", torch.zeros(3, 2), torch.zeros(4, 3), 1),
        ("centers", torch.zeros(3, 3), torch.zeros(4, 2), 1),
        ("centers", torch.zeros(3, 3), torch.zeros(4, 3, dtype=torch.float64), 1),
        ("k", torch.zeros(3, 3), torch.zeros(4, 3), 4),
        ("k", torch.zeros(3, 3), torch.zeros(4, 3), -1),
    ],
)
def test_bad_input_names_the_argument(argument: str, points: Tensor, centers: Tensor, k: int) -> None:
    with pytest.raises(InputError, match=f"^{argument}: expected"):
        knn(points, centers, k)
    if loader.load() is not None:
        with pytest.raises(RuntimeError, match=f"knn: {argument}: expected"):
            torch.ops.cfr_fast.knn(points, centers, k)
    if argument != "k":
        with pytest.raises(InputError, match=f"^{argument}: expected"):
            three_nn(points, centers)
