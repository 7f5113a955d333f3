"""Area under the per-region overlap curve (AUPRO), exact or as MVTec's evaluation samples it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from cfr_fast.errors import InputError
from cfr_fast.evaluation.ranks import DefectRanks, defect_ranks
from cfr_fast.evaluation.scoremaps import Images, checked_pairs

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


@overload
def aupro(maps: Images, ground_truth: Images, limit: float = 0.3, thresholds: int | None = None) -> float: ...
@overload
def aupro(
    maps: Images, ground_truth: Images, limit: Sequence[float], thresholds: int | None = None
) -> tuple[float, ...]: ...
def aupro(
    maps: Images,
    ground_truth: Images,
    limit: float | Sequence[float] = 0.3,
    thresholds: int | None = None,
) -> float | tuple[float, ...]:
    """Area under PRO against the false-positive rate, up to `limit`, divided by `limit`.

    PRO is the mean, over all 8-connected ground-truth regions of all images, of the share of the region
    that scores at or above a threshold; the false-positive rate counts all pixels outside the regions
    (Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021).

    Args:
        maps: [N, H, W], or N arrays [H, W] of any sizes; numpy or torch, any device, any float dtype; higher
            is more anomalous. They may come from a list, from any iterable, or from a callable without
            arguments that returns one, such as a function that reads files: those are gone through twice and
            no more than one image is held at a time. A generator is read once and its images are kept.
        ground_truth: the same shapes and choices; bool, or 0 and 1.
        limit: upper end of the false-positive rate, in (0, 1]; several give a tuple, for one sort.
        thresholds: None is exact: every distinct score counts. A number samples the curve as MVTec's
            script does, 99 being what papers report (see `pro_curve`). Below a limit of a few percent the
            two differ much: with 99 thresholds the first false-positive rate above zero is about 1 %.

    Returns:
        AUPRO in [0, 1]; a tuple where `limit` is a sequence. NaN where it has no meaning: no defect pixel
        at all, or nothing but defect pixels. Images without defect count as negatives, those without any
        pixel not at all. Constant maps give, exactly, the diagonal's area: limit / 2.

    Raises:
        InputError: shapes that differ, NaN or Inf in a map, a limit outside (0, 1], thresholds below 2.
    """
    limits = tuple(limit) if isinstance(limit, Sequence) else (limit,)
    for value in limits:
        if not 0 < value <= 1:
            raise InputError("limit", "a false-positive rate in (0, 1]", f"{value}")
    fpr, pro = pro_curve(maps, ground_truth, thresholds)
    areas = tuple(area_up_to(fpr, pro, value) for value in limits)
    return areas if isinstance(limit, Sequence) else areas[0]


def pro_curve(maps: Images, ground_truth: Images, thresholds: int | None = None) -> Curve:
    """Per-region overlap against the false-positive rate.

    Exact (None): pixels with tied scores enter together, as one point. Only the corners of the curve are
    returned, at most two for each distinct score inside a defect: between them it is a straight line. Memory
    beside the inputs is some 60 bytes a defect pixel, whatever the number of others. From (0, 0) to (1, 1).

    Sampled (a number T): T ranks, evenly spread (truncated to integers) over the n sorted negative scores;
    at rank r the threshold is that score, the false-positive rate is said to be (n − 1 − r)/n, and pixels
    strictly above the threshold overlap; (1, 1) ends the curve. Where negatives tie, that rate is the
    rank's and not the true one, which is MVTec's convention.

    Args:
        maps, ground_truth, thresholds: as in `aupro`.

    Returns:
        (fpr, pro), float64, both ascending; two single NaNs where there is no defect or no negative pixel.
    """
    if thresholds is not None and thresholds < 2:
        raise InputError("thresholds", "at least 2, or None for exact", f"{thresholds}")
    return curve_of(defect_ranks(checked_pairs(maps, ground_truth)), thresholds)


def curve_of(ranks: DefectRanks, thresholds: int | None = None) -> Curve:
    """`pro_curve` of ranks that are known: several curves of the same maps need them once."""
    if ranks.count.size == 0 or ranks.negatives == 0:
        return np.array([np.nan]), np.array([np.nan])
    # The overlap of everything at or above each distinct score, and of everything above it.
    at_least = np.minimum(np.cumsum(ranks.overlap[::-1])[::-1], 1.0)
    at_least[0] = 1.0
    at_least = np.append(at_least, 0.0)
    if thresholds is not None:
        rank = np.linspace(0, ranks.negatives - 1, thresholds).astype(np.int64)[::-1]
        # The negative of rank r reaches the defect scores that at most r negatives lie below.
        overlap = at_least[np.searchsorted(ranks.below, rank, side="right")]
        fpr = (ranks.negatives - 1 - rank) / ranks.negatives
        return np.append(fpr, 1.0), np.append(overlap, 1.0)
    # Negatives above, then at or above, from the highest score down.
    more = ranks.negatives - np.stack([ranks.up_to, ranks.below], axis=1)[::-1]
    pro = np.stack([at_least[1:], at_least[:-1]], axis=1)[::-1]
    return (
        np.concatenate([[0.0], more.ravel() / ranks.negatives, [1.0]]),
        np.concatenate([[0.0], pro.ravel(), [1.0]]),
    )


def area_up_to(fpr: NDArray[np.float64], pro: NDArray[np.float64], limit: float) -> float:
    """Trapezoid area under the curve for fpr ≤ limit, linear at the limit, divided by it; NaN stays NaN."""
    if np.isnan(fpr).any():
        return float("nan")
    inside = int(np.searchsorted(fpr, limit, side="right"))
    x, y = fpr[:inside], pro[:inside]
    if x[-1] < limit:
        share = (limit - x[-1]) / (fpr[inside] - x[-1])
        x, y = np.append(x, limit), np.append(y, y[-1] + share * (pro[inside] - y[-1]))
    return float(trapezoid(y, x) / limit)
