from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cfr_fast.extractors.geometry import Cloud, disk, measured_nearby, normals, smallest_eigenvector
from cfr_fast.extractors.normals import normal_map

SIZE = 96


def rays(size: int = SIZE) -> NDArray[np.float64]:
    """Directions of a pinhole camera, [size, size, 3] with z = 1."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return np.stack([x, y, np.ones_like(x)], axis=2)


def sphere(centre: tuple[float, float, float] = (0.0, 0.0, 2.0), radius: float = 0.7) -> NDArray[np.float64]:
    """First intersections of the rays with a sphere; zeros beside it."""
    ray, c = rays(), np.array(centre)
    a, b = (ray**2).sum(2), ray @ c
    root = b**2 - a * (c @ c - radius**2)
    depth = (b - np.sqrt(np.maximum(root, 0))) / a
    return np.where(root[..., None] > 0, ray * depth[..., None], 0.0)


def angle_to(found: torch.Tensor, expected: NDArray[np.float64]) -> torch.Tensor:
    cosine = (found.double() * torch.from_numpy(expected.copy())).sum(2).clamp(-1, 1)
    return torch.rad2deg(torch.acos(cosine))


@pytest.mark.parametrize("half_window", [1.5, 2.5, 4.0])
def test_normals_of_a_plane(half_window: float) -> None:
    normal = np.array([0.3, -0.5, -1.0])
    normal /= np.linalg.norm(normal)
    ray = rays()
    points = ray * (normal @ np.array([0, 0, 1.5]) / (ray @ normal))[..., None]
    cloud = Cloud.of(points.astype(np.float32))
    assert angle_to(normals(cloud, half_window), np.broadcast_to(normal, points.shape)).max() < 0.5


def test_normals_of_a_sphere_with_noise_and_holes() -> None:
    points = sphere()
    rng = np.random.default_rng(0)
    expected = (points - np.array([0, 0, 2.0])) / 0.7
    measured = (points != 0).any(2)
    slant = -(expected * points).sum(2) / np.linalg.norm(points, axis=2).clip(1e-9)
    noisy = points * (1 + 1e-4 * rng.standard_normal((SIZE, SIZE, 1)))
    noisy[rng.random((SIZE, SIZE)) < 0.2] = 0
    clean, rough = (normals(Cloud.of(p.astype(np.float32)), 2.5) for p in (points, noisy))
    inner = torch.from_numpy(measured & (slant > 0.4))
    assert angle_to(clean, expected)[inner].max() < 2
    kept = inner & torch.from_numpy((noisy != 0).any(2))
    assert angle_to(rough, expected)[kept].quantile(0.95) < 3
    assert not rough[torch.from_numpy(~(noisy != 0).any(2))].any()


def test_a_surface_behind_an_edge_does_not_bend_normals() -> None:
    points = rays() * 1.0
    points[:, SIZE // 2 :] *= 2
    found = normals(Cloud.of(points.astype(np.float32)), 2.5)
    assert angle_to(found, np.broadcast_to(np.array([0, 0, -1.0]), points.shape)).max() < 0.5


def test_normals_face_the_camera() -> None:
    points = sphere((0.2, -0.3, 2.0)).astype(np.float32)
    found = normals(Cloud.of(points), 2.5)
    assert ((found * torch.from_numpy(points)).sum(2) <= 0).all()


def test_smallest_eigenvectors_agree_with_lapack() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200, 3, 3, generator=generator, dtype=torch.float64)
    matrix = a @ a.transpose(1, 2)
    value, vector = smallest_eigenvector(matrix)
    expected, vectors = torch.linalg.eigh(matrix)
    torch.testing.assert_close(value, expected[:, 0], atol=1e-9, rtol=1e-7)
    torch.testing.assert_close((vector * vectors[:, :, 0]).sum(1).abs(), torch.ones(200).double())
    value, vector = smallest_eigenvector(torch.zeros(1, 3, 3))
    assert not value.any()
    assert not vector.any()


def test_extent_follows_the_part_not_its_pose() -> None:
    points = sphere().astype(np.float32)
    turned = np.stack([points[..., 1], -points[..., 0], points[..., 2]], axis=2)
    first, second = Cloud.of(points), Cloud.of(np.rot90(turned).copy())
    assert first.extent == pytest.approx(second.extent, rel=1e-5)
    assert Cloud.of(points * 1000).extent == pytest.approx(1000 * first.extent, rel=1e-5)
    assert Cloud.of(np.zeros((4, 4, 3), np.float32)).extent == 0


def test_disks() -> None:
    assert disk(1.5).tolist() == [[-1, -1], [-1, 0], [-1, 1], [0, -1], [0, 1], [1, -1], [1, 0], [1, 1]]
    sparse = disk(20, 64)
    assert 50 <= len(sparse) <= 64
    assert sparse.float().norm(dim=1).max() <= 21
    assert sparse.float().mean(0).abs().max() < 1.5


def test_normal_map_fades_to_neutral_and_fills_holes() -> None:
    points = sphere().astype(np.float32)
    whole = normal_map(Cloud.of(points))
    assert whole.shape == (3, SIZE, SIZE)
    assert whole.min() >= 0
    assert whole.max() <= 1
    torch.testing.assert_close(whole[:, 0, 0], torch.tensor([0.5, 0.5, 1.0]))
    assert whole[2, SIZE // 2, SIZE // 2] > 0.99
    assert whole[1, SIZE // 2 - 15, SIZE // 2] > 0.6  # y up: the upper half of the ball looks up
    points[SIZE // 2 + 5, SIZE // 2 - 8] = 0
    assert (normal_map(Cloud.of(points)) - whole).abs().max() < 0.05


def test_fields_reach_a_little_beyond_measured_points() -> None:
    valid = torch.zeros(200, 200, dtype=torch.bool)
    assert not measured_nearby(valid).any()
    valid[100, 100] = True
    near = measured_nearby(valid).view(200, 200)
    assert near[100, 102]
    assert near.sum() == 13
