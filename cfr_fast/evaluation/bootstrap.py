"""Confidence intervals of metrics: what they would be on other test images of the same kinds.

Percentile bootstrap (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13): test images
are drawn anew, with replacement, as many normal and as many anomalous ones as there are; the interval holds
the middle 95 % of the metric's values on such draws. It speaks of the choice of test images alone, not of the
shots nor of the model's seed, of which the deviation over seeds speaks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfr_fast.evaluation.confidence import Interval
from cfr_fast.evaluation.level_curves import LevelCurves

RESAMPLES = 1000
COVERAGE = 0.95
_BLOCK = 1 << 15  # entries of curves worked on at a time, so that they stay in the processor's cache
_SEED = 0  # the same draws for all methods: their differences are of the same images


def draw_resamples(anomalous: Sequence[bool], count: int = RESAMPLES) -> NDArray[np.float32] | None:
    """How often each of N images is in each resample: float32 [count, N].

    Each row holds as many normal and as many anomalous images as there are. None where a kind that is there
    has a single image: it would be in every resample, and look certain.
    """
    kinds = np.asarray(anomalous, dtype=bool)
    weights = np.zeros((count, kinds.size), dtype=np.float32)
    rng = np.random.default_rng(_SEED)
    for kind in (False, True):
        number = int((kinds == kind).sum())
        if number == 1:
            return None
        if number:
            weights[:, kinds == kind] = rng.multinomial(number, np.full(number, 1 / number), count)
    return weights


def resampled_auroc(
    scores: ArrayLike, anomalous: Sequence[bool], weights: NDArray[np.float32]
) -> NDArray[np.float64]:
    """`image_auroc` of every resample, exact with ties.

    Args:
        scores: [N].
        anomalous: N.
        weights: [B, N], as of `draw_resamples`. Memory: some 40 bytes for each of its entries.

    Returns:
        float64 [B]; NaN where one of the two kinds is absent.
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(anomalous, dtype=bool)
    order = np.argsort(values, kind="stable")
    _, first = np.unique(values[order], return_index=True)
    # Of each distinct score, ascending, how many images of each kind there are.
    counts = [
        np.add.reduceat((weights * kind)[:, order], first, axis=1, dtype=np.float64)
        for kind in (positive, ~positive)
    ]
    below = np.cumsum(counts[1], axis=1) - counts[1] / 2
    pairs = counts[0].sum(axis=1) * counts[1].sum(axis=1)
    return _quotient((counts[0] * below).sum(axis=1), pairs)


def resampled_areas(
    curves: LevelCurves, weights: NDArray[np.float32], limits: Sequence[float]
) -> NDArray[np.float64]:
    """The area under `found` against the false-positive rate, up to each limit and divided by it.

    With defect pixels weighted by region that is the exact AUPRO of every resample, with weights of 1 and the
    limit 1 its pixel AUROC, both of scores rounded down to the levels of the curves. Between neighbouring
    levels a curve is taken as straight, as where scores tie. Memory: some 2 MB beside the curves.

    Args:
        curves: of N images at K levels.
        weights: [B, N], as of `draw_resamples`.
        limits: of the false-positive rate, in (0, 1].

    Returns:
        float64 [B, number of limits]; NaN where a resample has no defect pixel, or nothing else.
    """
    step = max(1, _BLOCK // curves.negatives.shape[1])
    blocks = [weights[first : first + step] for first in range(0, len(weights), step)]
    return np.concatenate([_areas(curves, block, limits) for block in blocks])


def _areas(curves: LevelCurves, weights: NDArray[np.float32], limits: Sequence[float]) -> NDArray[np.float64]:
    x, y = (
        _quotient(sums, sums[:, -1:])
        for sums in ((weights @ part).astype(np.float64) for part in (curves.negatives, curves.found))
    )
    area = np.zeros_like(x)
    np.cumsum((x[:, 1:] - x[:, :-1]) * (y[:, 1:] + y[:, :-1]) / 2, axis=1, out=area[:, 1:])
    rows = np.arange(len(x))
    found = np.empty((len(x), len(limits)))
    for column, limit in enumerate(limits):
        # The limit lies between this point and the next.
        at = np.minimum(np.count_nonzero(x <= limit, axis=1), x.shape[1] - 1) - 1
        rest, width = limit - x[rows, at], x[rows, at + 1] - x[rows, at]
        share = np.divide(rest, width, out=np.zeros_like(rest), where=width > 0)
        height = y[rows, at] + share * (y[rows, at + 1] - y[rows, at]) / 2
        found[:, column] = (area[rows, at] + rest * height) / limit
    return np.clip(found, 0.0, 1.0)  # shares are rounded to float32


def interval(values: NDArray[np.float64]) -> Interval | None:
    """The middle 95 % of resampled values; None where none is defined. Undefined ones (NaN) do not count."""
    known = values[~np.isnan(values)]
    if known.size == 0:
        return None
    low, high = np.quantile(known, ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
    return float(low), float(high)


def _quotient(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)
