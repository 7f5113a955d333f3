"""Curves of single images at score levels that all images share: what resampling images needs of their maps.

Counts at common levels add up. So the curve of any choice of images, repeated or left out, is a weighted sum
of these, without looking at a pixel again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfr_fast.evaluation.ranks import below_levels, region_shares

LEVELS = 512
SAMPLE = 1 << 17  # pixels, about, that the levels are chosen from
COUNTED = 1 << 14  # most pixels of an image that are counted outside defects; maps are smooth


@dataclass(frozen=True)
class Defect:
    """The defect pixels of one image.

    Args:
        mask: bool [H, W].
        shares: float64 [D], in raster order 1 / size of each one's 8-connected region.
    """

    mask: NDArray[np.bool_]
    shares: NDArray[np.float64]


@dataclass(frozen=True)
class LevelCurves:
    """Of N images at K levels, from the highest level down; K + 2 columns.

    Column 0 is 0, column k counts what scores at or above the k-th highest level, the last one everything.

    Args:
        negatives: float32 [N, K + 2], pixels outside the defects.
        found: float32 [N, K + 2], defect pixels, each with its weight.
    """

    negatives: NDArray[np.float32]
    found: NDArray[np.float32]


def defect_of(mask: NDArray[np.bool_]) -> Defect:
    """The shares of a ground truth's pixels; bool [H, W]."""
    return Defect(mask, region_shares(mask))


def level_curves(
    maps: Sequence[NDArray[np.float32]], defects: Sequence[Defect], *, by_region: bool
) -> LevelCurves:
    """The curves of N images.

    Scores between two levels count as the lower one. Of an image with more than `COUNTED` pixels those
    outside the defects are counted on the grid of every second (third, …) row and column, and stand for all;
    defect pixels are all counted. On the benchmark's 110 maps both roundings together move AUPRO by less than
    1e-4, where its intervals are 0.02 to 0.04 wide. Memory: 4·(K + 2) bytes an image, twice.

    Args:
        maps: N arrays float32 [H, W], finite.
        defects: N, of the same shapes.
        by_region: whether a defect pixel weighs its share of its region, as in PRO (then the last column of
            `found` is the number of regions), or 1, as in pixel AUROC.
    """
    levels = choose_levels(maps, defects)
    negatives = np.zeros((len(maps), levels.size + 2), dtype=np.float32)
    found = np.zeros_like(negatives)
    for index, (values, defect) in enumerate(zip(maps, defects, strict=True)):
        step = math.ceil(math.sqrt(values.size / COUNTED))
        some, mask = values[::step, ::step], defect.mask[::step, ::step]
        counted = mask.size - np.count_nonzero(mask)
        if counted:
            each = (values.size - defect.shares.size) / counted
            negatives[index, 1:-1] = each * (counted - below_levels(some, mask, levels)[::-1])
            negatives[index, -1] = each * counted
        if defect.shares.size:
            # 0: below every level; else one more than the place of the level that it counts as.
            place = np.searchsorted(levels, values[defect.mask], side="right")
            weights = defect.shares if by_region else None
            found[index, 1:] = np.cumsum(np.bincount(place, weights, levels.size + 1)[::-1])
    return LevelCurves(negatives, found)


def choose_levels(maps: Sequence[NDArray[np.float32]], defects: Sequence[Defect]) -> NDArray[np.float32]:
    """Distinct levels, ascending: all scores where they are few, else at most `LEVELS` of the negatives'.

    Those are chosen so that the shares of the negatives at or above them form a geometric sequence: curves
    are as fine, relatively, at a false-positive rate of 1 % as at 30 %. With more than `SAMPLE` pixels both
    are judged from every n-th.
    """
    step = max(1, sum(values.size for values in maps) // SAMPLE)
    inside = [np.empty(0, dtype=np.float32)]
    outside = [np.empty(0, dtype=np.float32)]
    for values, defect in zip(maps, defects, strict=True):
        some, mask = values.reshape(-1)[::step], defect.mask.reshape(-1)[::step]
        inside.append(some[mask])
        outside.append(some[~mask])
    negatives = np.sort(np.concatenate(outside))
    distinct = np.union1d(np.concatenate(inside), negatives)
    if distinct.size <= LEVELS or negatives.size == 0:
        return distinct[-LEVELS:]
    places = np.geomspace(1, negatives.size, LEVELS).astype(np.int64)
    return np.unique(negatives[negatives.size - places])
