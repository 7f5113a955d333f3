"""CUDA kernels of farthest_point_sample, three_nn and knn: their sources on the CPU, the ops on a device."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import emulated
import pytest
import torch
from torch import Tensor

from cfr_fast.ops import _build, loader, reference, registry

WITH_DEVICE = pytest.param(
    "device", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Emulation:
    """The kernels' sources, thread by thread on the CPU; every call runs twice and must repeat its bits."""

    def __call__(self, name: str, *arguments: Any) -> tuple[Tensor, ...]:
        first, again = (self.once(name, *arguments) for _ in range(2))
        for one, other in zip(first, again, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        return first

    def once(self, name: str, *arguments: Any) -> tuple[Tensor, ...]:
        results = getattr(emulated.ops(), f"{name}_cuda")(*arguments, 0)
        return results if isinstance(results, tuple) else (results,)


class Device(Emulation):
    """The public ops on a real device, on a stream that is not the default one."""

    def once(self, name: str, *arguments: Any) -> tuple[Tensor, ...]:
        loader.ready()
        assert registry.has_cuda_kernel(name)
        there = [item.cuda() if isinstance(item, Tensor) else item for item in arguments]
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            results = getattr(torch.ops.cfr_fast, name)(*there)
        torch.cuda.synchronize()
        return tuple(item.cpu() for item in (results if isinstance(results, tuple) else (results,)))


@pytest.fixture(params=["emulation", WITH_DEVICE])
def run(request: pytest.FixtureRequest) -> Emulation:
    return Emulation() if request.param == "emulation" else Device()


def assert_farthest(points: Tensor, picks: Tensor, initial: Tensor | None) -> None:
    """In float64 every pick is the farthest row, up to rounding."""
    assert picks.dtype == torch.int64
    exact = points.double()
    anchor = exact.new_full((len(points),), torch.inf) if initial is None else initial.double().square()
    if initial is None and len(picks):
        assert picks[0] == 0
    for step, pick in enumerate(picks):
        if step > 0 or initial is not None:
            assert anchor[pick] >= anchor.max() * (1 - 1e-6)
        anchor = torch.minimum(anchor, (exact - exact[pick]).square().sum(dim=1))


@pytest.mark.parametrize("covered", [False, True])
@pytest.mark.parametrize(
    ("n", "d", "count"),
    [
        (5, 3, 0),
        (1, 1, 1),
        (7, 0, 3),
        (255, 3, 40),  # below, at and above a block's 256 rows of few columns
        (256, 8, 5),
        (257, 3, 12),
        (7, 9, 7),  # 8 rows a block where a warp takes one
        (9, 33, 9),
        (31, 12, 6),  # 32 rows a block where columns come in fours
        (33, 128, 20),
        (5000, 3, 4),  # more rows than all blocks take at once
        (70, 1152, 5),
    ],
)
def test_farthest_point_sample(run: Emulation, n: int, d: int, count: int, covered: bool) -> None:
    points = randn(n, d, seed=1)
    initial = randn(n, seed=2).abs() * d**0.5 if covered else None
    (picks,) = run("farthest_point_sample", points, count, initial)
    assert picks.shape == (count,)
    assert_farthest(points, picks, initial)
    if d <= 3:
        assert torch.equal(picks, reference.farthest_point_sample(points, count, initial))


@pytest.mark.parametrize("d", [3, 12, 33])
def test_picks_with_many_ties(run: Emulation, d: int) -> None:
    """Whole numbers: every sum is exact, so the picks are those of the plain loop."""
    points = (2 * randn(150, d, seed=d)).round()
    points[40:80] = points[:40]
    (picks,) = run("farthest_point_sample", points, 9, None)
    assert torch.equal(picks, reference.farthest_point_sample(points, 9))
    (picks,) = run("farthest_point_sample", randn(3, d).repeat(50, 1), 7, None)
    assert set(picks[:3].tolist()) == {0, 1, 2}
    assert (picks[3:] == 0).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
@pytest.mark.parametrize("where", ["points", "initial"])
def test_anchors_that_are_no_distances(run: Emulation, where: str, value: float) -> None:
    points, initial = randn(150, 9).round(), randn(150, seed=1).abs()
    if where == "points":
        points[140, 3] = points[11, 0] = value
    else:
        initial[140] = value
    (picks,) = run("farthest_point_sample", points, 6, initial)
    assert torch.equal(picks, reference.farthest_point_sample(points, 6, initial))


@pytest.mark.parametrize(
    ("n", "g"), [(0, 3), (1, 3), (7, 4), (63, 9), (64, 5), (65, 1023), (3, 1024), (70, 1025)]
)
def test_three_nn(run: Emulation, n: int, g: int) -> None:
    points, centers = randn(n, 3), randn(g, 3, seed=1)
    index, weight = run("three_nn", points, centers)
    wanted_index, wanted_weight = reference.three_nn(points, centers)
    assert torch.equal(index, wanted_index)
    torch.testing.assert_close(weight, wanted_weight, rtol=3e-7, atol=0)
    squared = reference.squared_distances(centers.double(), points.double()).sort(dim=1).values
    inverse = 1 / (squared[:, :3] + 1e-8)
    torch.testing.assert_close(weight.double(), inverse / inverse.sum(1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_three_nn_ties_and_nan(run: Emulation) -> None:
    points, centers = randn(40, 3), (randn(600, 3, seed=1) * 2).round()
    centers[[3, 590], 1], points[5] = torch.nan, torch.nan
    for chosen in (centers, centers[:590][4:]):
        index, weight = run("three_nn", points, chosen)
        wanted = reference.three_nn(points, chosen)
        assert torch.equal(index, wanted[0])
        torch.testing.assert_close(weight, wanted[1], rtol=3e-7, atol=0, equal_nan=True)
    index, weight = run("three_nn", points[:2], randn(20, 3, seed=1) * 1e30)
    assert index.tolist() == [[0, 1, 2]] * 2
    assert weight.isnan().all()


@pytest.mark.parametrize(
    ("n", "g", "k"),
    [
        (0, 3, 0),
        (5, 0, 3),
        (5, 4, 0),
        (1, 1, 1),
        (7, 5, 7),
        (1023, 2, 17),  # below, at and above the points between two looks at the list
        (1024, 2, 128),
        (1025, 2, 1),
        (4099, 2, 300),
        (2049, 1, 1024),
        (3072, 1, 3072),
    ],
)
def test_knn(run: Emulation, n: int, g: int, k: int) -> None:
    points, centers = randn(n, 3), randn(g, 3, seed=1)
    (found,) = run("knn", points, centers, k)
    assert found.dtype == torch.int64
    assert torch.equal(found, reference.knn(points, centers, k))
    squared = reference.squared_distances(points.double(), centers.double())
    wanted = squared.sort(dim=1).values[:, :k]
    torch.testing.assert_close(squared.gather(1, found), wanted, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("order", ["ascending", "descending", "tied"])
def test_knn_of_ordered_points(run: Emulation, order: str) -> None:
    points = torch.zeros(6000, 3)
    points[:, 0] = torch.linspace(0, 1, 6000)
    points = {"ascending": points, "descending": points.flip(0), "tied": (points * 20).round()}[order]
    (found,) = run("knn", points, torch.tensor([[0.0, 0, 0]]), 100)
    assert torch.equal(found, reference.knn(points, torch.zeros(1, 3), 100))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e25])
def test_knn_puts_what_is_no_distance_last(run: Emulation, value: float) -> None:
    points, centers = randn(2100, 3), randn(2, 3, seed=1)
    points[::2, 1], centers[1, 0] = value, value
    points[:1024, 0] = value
    for k in (100, 1500):
        assert torch.equal(run("knn", points, centers, k)[0], reference.knn(points, centers, k))


def test_views(run: Emulation) -> None:
    points, centers = randn(90, 3), randn(40, 3, seed=1)
    padded = torch.full((106, 9), torch.nan)
    padded[8:-8, 3:6] = points
    view, columns = padded[8:-8, 3:6], centers.T.contiguous().T
    assert torch.equal(run("three_nn", view, columns)[0], reference.three_nn(points, centers)[0])
    assert torch.equal(run("knn", view, columns, 20)[0], reference.knn(points, centers, 20))
    initial = randn(90, seed=1).abs()
    (picks,) = run("farthest_point_sample", view, 9, initial.repeat_interleave(2)[::2])
    assert torch.equal(picks, reference.farthest_point_sample(points, 9, initial))
    wide, bed = randn(50, 12).round(), torch.full((50, 17), torch.nan)
    bed[:, 1:13] = wide  # rows that no sixteen bytes are aligned with
    (picks,) = run("farthest_point_sample", bed[:, 1:13], 9, None)
    assert torch.equal(picks, reference.farthest_point_sample(wide, 9))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("farthest_point_sample", (torch.zeros(3, 2), 4, None), "count: expected"),
        ("farthest_point_sample", (torch.zeros(3, 2), 1, torch.zeros(2)), "initial_distance: expected"),
        ("three_nn", (torch.zeros(3, 3), torch.zeros(2, 3)), "centers: expected at least 3 rows"),
        ("knn", (torch.zeros(3, 3), torch.zeros(4, 3), 4), "k: expected"),
        ("knn", (torch.zeros(4000, 3), torch.zeros(4, 3), 3073), "k: expected at most 3072"),
    ],
)
def test_bad_input_names_the_argument(name: str, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(RuntimeError, match=f"{name}: {message}"):
        Emulation().once(name, *arguments)


def test_python_knows_how_many_neighbours_a_block_holds() -> None:
    header = (_build.find_csrc() / "kernels.h").read_text()
    assert f"kMaxNeighbours = {import_module('cfr_fast.ops.knn').MAX_ON_CUDA};" in header


def test_arguments_that_equal_their_defaults_are_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch leaves them out when it calls a Python kernel; the stream must not take their place."""
    loader.ready()
    namespace = SimpleNamespace(
        farthest_point_sample=torch.ops.cfr_fast.farthest_point_sample,
        farthest_point_sample_cuda=emulated.ops().farthest_point_sample_cuda,
    )
    monkeypatch.setattr(torch.ops, "cfr_fast", namespace)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))
    kernel, points = registry._cuda_kernel("farthest_point_sample"), randn(9, 3)
    wanted = reference.farthest_point_sample(points, 4)
    assert torch.equal(kernel(points, 4), wanted)
    assert torch.equal(kernel(points, 4, None), wanted)
