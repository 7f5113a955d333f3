"""Races of the exact AUPRO against MVTec's sampled method."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cfr_fast.benchmark import memory
from cfr_fast.benchmark.race import Race, Seconds, Stage
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


class WholeDataset:
    """All test images of MVTec 3D-AD at full resolution, as sizes and defects go: made anew at each reading.

    Args:
        share: every how manieth image there is.
    """

    COUNT, SIDES = 1197, (400, 500, 600, 700, 800, 900)  # 541 million pixels

    def __init__(self, share: int = 1) -> None:
        self.share = share
        rng = np.random.default_rng(0)
        largest = self.SIDES[-1]
        self._noise = np.abs(rng.standard_normal((largest + 100, largest + 100), dtype=np.float32))

    def masks(self) -> Iterator[NDArray[np.bool_]]:
        """Seven of ten images have a defect, 3 % of the pixels."""
        for index in range(0, self.COUNT, self.share):
            side = self.SIDES[index % len(self.SIDES)]
            mask = np.zeros((side, side), dtype=bool)
            if index % 10 < 7:
                mask[side // 2 : side // 2 + side // 6, side // 3 : side // 3 + side // 6] = True
            yield mask

    def maps(self) -> Iterator[NDArray[np.float32]]:
        """Scores that hardly ever tie, higher inside the defects."""
        for number, mask in enumerate(self.masks()):
            top, left = number % 100, number * 7 % 100
            scores = self._noise[top : top + len(mask), left : left + len(mask)] * np.float32(
                1 + number / 1e4
            )
            yield scores + mask


def sampled_aupro(
    maps: Iterable[NDArray[np.float32]], masks: Iterable[NDArray[np.bool_]], thresholds: int = 99
) -> list[float]:
    """MVTec's method in plain numpy: equidistant ranks of the sorted negatives, every region's overlap."""
    regions: list[NDArray[np.float32]] = []
    others: list[NDArray[np.float32]] = []
    for scores, mask in zip(maps, masks, strict=True):
        label, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [np.sort(scores[label == index]) for index in range(1, count + 1)]
        others.append(scores[~mask])
    negatives = np.sort(np.concatenate(others))
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


def aupro_whole() -> Race:
    """The whole dataset, its images one by one; the peer's time is extrapolated from every 19th image."""
    whole, part = WholeDataset(), WholeDataset(19)

    def same() -> None:
        found = exact_aupro(part.maps, part.masks, LIMITS, 99)
        # Millions of shares are added up: the last digits differ.
        np.testing.assert_allclose(sampled_aupro(part.maps(), part.masks()), found, rtol=0, atol=1e-9)

    def every_19th() -> Seconds:
        start = time.perf_counter()
        sampled_aupro(part.maps(), part.masks())
        return Seconds(part.share * (time.perf_counter() - start))

    peers = {"99 thresholds, numpy, from every 19th": every_19th}
    stage = Stage(lambda: exact_aupro(whole.maps, whole.masks, LIMITS), peers, rounds=3, warm=False)
    what = f"exact AUPRO of {whole.COUNT:,} full-size maps, making them included"
    return Race(what, (stage,), same=same)


def aupro_whole_memory() -> Race:
    """Peak memory of the same, against lists of all images."""
    whole = WholeDataset()

    def in_memory() -> list[float]:
        return list(exact_aupro(list(whole.maps()), list(whole.masks()), LIMITS))

    stage = Stage(
        lambda: memory.peak(lambda: exact_aupro(whole.maps, whole.masks, LIMITS)),
        {"all images in memory, theirs included": lambda: memory.peak(in_memory)},
        rounds=1,
        warm=False,
    )
    return Race("peak memory of that, images one by one", (stage,), unit="bytes")
