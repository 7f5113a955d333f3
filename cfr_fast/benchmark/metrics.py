"""Race of the exact AUPRO against MVTec's sampled method."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cfr_fast.benchmark.race import Race, Stage
from cfr_fast.evaluation import aupro as exact_aupro

LIMITS = (0.30, 0.10, 0.05, 0.01)
MAPS, SIZE = 110, 224


def category() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Test images as one category of MVTec 3D-AD has them: seven of ten with one to three defects.

    Smooth anomaly maps, zero on the background, somewhat higher inside the defects.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    maps = np.zeros((MAPS, SIZE, SIZE), dtype=np.float32)
    masks = np.zeros(maps.shape, dtype=bool)
    for scores, mask in zip(maps, masks, strict=True):
        for _ in range(rng.integers(1, 4) if rng.random() < 0.7 else 0):
            (cy, cx), radius = rng.uniform(0.3, 0.7, 2), rng.uniform(0.02, 0.08)
            mask |= (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        noise = ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), SIZE / 100)
        inside = (y - 0.5) ** 2 + (x - 0.5) ** 2 < 0.4**2
        scores[inside] = np.abs(noise / noise.std() + mask)[inside]
    return maps, masks


def sampled_aupro(maps: NDArray[np.float32], masks: NDArray[np.bool_], thresholds: int = 99) -> list[float]:
    """MVTec's method in plain numpy: equidistant ranks of the sorted negatives, every region's overlap."""
    regions: list[NDArray[np.float32]] = []
    for scores, mask in zip(maps, masks, strict=True):
        label, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [np.sort(scores[label == index]) for index in range(1, count + 1)]
    negatives = np.sort(maps[~masks])
    rank = np.linspace(0, negatives.size - 1, thresholds, dtype=int)[::-1]
    found = [1 - np.searchsorted(region, negatives[rank], side="right") / region.size for region in regions]
    fpr = np.append((negatives.size - 1 - rank) / negatives.size, 1.0)
    pro = np.append(np.mean(found, axis=0), 1.0)
    areas = []
    for limit in LIMITS:
        inside = fpr < limit
        x, y = np.append(fpr[inside], limit), np.append(pro[inside], np.interp(limit, fpr, pro))
        areas.append(float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / limit))
    return areas


def aupro() -> Race:
    """Four limits at once; ours is exact, the peer has 99 thresholds."""
    maps, masks = category()

    def same() -> None:
        np.testing.assert_allclose(
            sampled_aupro(maps, masks), exact_aupro(maps, masks, LIMITS, 99), rtol=0, atol=1e-12
        )

    name = "99 thresholds, numpy"
    stage = Stage(lambda: exact_aupro(maps, masks, LIMITS), {name: lambda: sampled_aupro(maps, masks)})
    return Race(f"exact AUPRO, {MAPS} maps of {SIZE} × {SIZE}", (stage,), bars={name: 1.0}, same=same)
