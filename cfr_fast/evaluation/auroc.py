"""Area under the ROC curve of images and of pixels, from ranks, exact with ties."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfr_fast.errors import InputError
from cfr_fast.evaluation.scoremaps import Images, Scores, checked_pairs, count_negatives, negative_scores


def image_auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Probability that an anomalous image scores above a normal one; a tie counts half.

    Args:
        scores: [N], real; higher is more anomalous.
        labels: [N], bool or 0 and 1; True is anomalous.

    Returns:
        AUROC in [0, 1]; NaN where one of the two classes is absent.

    Raises:
        InputError: lengths that differ, NaN or Inf among the scores.
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 1:
        raise InputError("scores", "a sequence of numbers", f"shape {list(values.shape)}")
    if positive.shape != values.shape:
        raise InputError("labels", f"{values.size}, one for each score", f"shape {list(positive.shape)}")
    if not np.isfinite(values).all():
        raise InputError("scores", "finite scores", "NaN or infinity")
    positive = positive != 0
    return _auroc(values[positive], [values[~positive]], values.size)


def pixel_auroc(maps: Images, ground_truth: Images) -> float:
    """Probability that a defect pixel scores above any other pixel; a tie counts half.

    Args:
        maps, ground_truth: as in `aupro`. In the protocol the maps are those of `pixel_auroc_map`.

    Returns:
        AUROC in [0, 1]; NaN without any defect pixel, or with nothing else.

    Raises:
        InputError: shapes that differ, NaN or Inf in a map.
    """
    pairs = checked_pairs(maps, ground_truth)
    empty: Scores = np.empty(0, dtype=np.float32)
    positives: Scores = np.concatenate([empty, *(values[mask] for values, mask in pairs if mask.any())])
    return _auroc(positives, negative_scores(pairs), sum(mask.size for _, mask in pairs))


def pixel_auroc_map(raw_map: NDArray[Any]) -> NDArray[np.float64]:
    """Scale a raw map s for pixel AUROC: s / √(mean of all entries); zeros stay zeros.

    Args:
        raw_map: [H, W], not negative. (For localisation the map is divided by the mean of its non-zero
            entries instead; the two scalings differ by a factor that depends on the image.)
    """
    values = np.asarray(raw_map, dtype=np.float64)
    mean = float(values.mean())
    return values / np.sqrt(mean) if mean > 0 else np.zeros_like(values)


def _auroc(positives: Scores, negatives: Iterable[Scores], total: int) -> float:
    pairs = positives.size * (total - positives.size)
    if pairs == 0:
        return float("nan")
    distinct, count = np.unique(positives, return_counts=True)
    below, up_to = count_negatives(negatives, distinct)
    # Twice the number of ordered pairs, in integers, so that nothing is rounded before the division.
    return int(count @ (below + up_to)) / (2 * pairs)
