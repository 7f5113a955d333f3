from __future__ import annotations

import pytest
import torch
from conftest import Race
from torch import Tensor

from cfr_fast.ops import farthest_point_sample, knn, loader, reference, three_nn


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth_field(dim: int) -> Tensor:
    """Features as extractors give them: 28 × 28 tokens interpolated to 224 × 224 pixels."""
    tokens = torch.nn.functional.avg_pool2d(randn(1, dim, 30, 30), 3, 1)
    return torch.nn.functional.interpolate(tokens, (224, 224), mode="bilinear")[0].flatten(1).T.contiguous()


@pytest.mark.parametrize("kind", ["smooth", "normal"])
def test_farthest_point_sample(race: Race, kind: str) -> None:
    """The coreset of one shot, a tenth of its pixels; minutes, most of them for the plain loop."""
    points = smooth_field(128) if kind == "smooth" else randn(224 * 224, 128)
    count = len(points) // 10
    assert loader.load() is not None
    picks = farthest_point_sample(points, count)
    expected = []

    def plain() -> None:
        expected.append(reference.farthest_point_sample(points, count))

    race(3.0 * len(points) * count * 128, lambda: farthest_point_sample(points, count), plain_loop=plain)
    assert torch.equal(picks, expected[0])


def cloud() -> tuple[Tensor, Tensor]:
    """25,000 points and 1,024 of them as centres."""
    points = randn(25_000, 3)
    return points, points[torch.randperm(len(points), generator=torch.Generator().manual_seed(1))[:1024]]


def test_three_nn(race: Race) -> None:
    points, centers = cloud()
    assert loader.load() is not None

    def sort() -> Tensor:
        nearest, _ = (points[:, None] - centers[None]).square().sum(dim=2).sort(dim=1)
        inverse = 1 / (nearest[:, :3] + 1e-8)
        return inverse / inverse.sum(dim=1, keepdim=True)

    race(8.0 * len(points) * len(centers), lambda: three_nn(points, centers), torch_sort=sort)


def test_knn(race: Race) -> None:
    points, centers = cloud()
    assert loader.load() is not None

    def product() -> Tensor:
        squared = centers.square().sum(1, keepdim=True) - 2 * centers @ points.T + points.square().sum(1)
        return squared.topk(128, dim=1, largest=False).indices

    race(8.0 * len(points) * len(centers), lambda: knn(points, centers, 128), torch_mm_topk=product)
