"""Area under the ROC curve of images and of pixels, from ranks, exact with ties."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.evaluation.ranks import defect_ranks
from cfr_fast.evaluation.scoremaps import Images, checked_pairs, numbers


def image_auroc(scores: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> float:
    """Probability that an anomalous image scores above a normal one; a tie counts half.

    Args:
        scores: [N], real; numpy, torch or a list; higher is more anomalous.
        labels: [N], bool or 0 and 1; True is anomalous.

    Returns:
        AUROC in [0, 1]; NaN where one of the two classes is absent.

    Raises:
        InputError: lengths that differ, NaN or Inf among the scores.
    """
    values, positive = numbers(scores).astype(np.float64), numbers(labels)
    if values.ndim != 1:
        raise InputError("scores", "a sequence of numbers", f"shape {list(values.shape)}")
    if positive.shape != values.shape:
        raise InputError("labels", f"{values.size}, one for each score", f"shape {list(positive.shape)}")
    if not np.isfinite(values).all():
        raise InputError("scores", "finite scores", "NaN or infinity")
    positive = positive != 0
    distinct, count = np.unique(values[positive], return_counts=True)
    negatives = np.sort(values[~positive])
    below, up_to = (np.searchsorted(negatives, distinct, side=side) for side in ("left", "right"))
    return _auroc(count, below + up_to, negatives.size)


def pixel_auroc(maps: Images, ground_truth: Images) -> float:
    """Probability that a defect pixel scores above any other pixel; a tie counts half.

    Args:
        maps, ground_truth: as in `aupro`. In the protocol the maps are those of `pixel_auroc_map`.

    Returns:
        AUROC in [0, 1]; NaN without any defect pixel, or with nothing else. Constant maps give 1/2.

    Raises:
        InputError: shapes that differ, NaN or Inf in a map.
    """
    ranks = defect_ranks(checked_pairs(maps, ground_truth))
    return _auroc(ranks.count, ranks.below + ranks.up_to, ranks.negatives)


def pixel_auroc_map(raw_map: NDArray[Any]) -> NDArray[np.float64]:
    """Scale a raw map s for pixel AUROC: s / √(mean of all entries); zeros stay zeros.

    Args:
        raw_map: [H, W], not negative. (For localisation the map is divided by the mean of its non-zero
            entries instead; the two scalings differ by a factor that depends on the image.)
    """
    values = np.asarray(raw_map, dtype=np.float64)
    mean = float(values.mean())
    return values / np.sqrt(mean) if mean > 0 else np.zeros_like(values)


def _auroc(count: NDArray[np.int64], below_twice: NDArray[np.int64], negatives: int) -> float:
    """From the number of positives with each score and twice the negatives below it, where ties are half."""
    pairs = int(count.sum()) * negatives
    # Integers, so that nothing is rounded before the division.
    return int(count @ below_twice) / (2 * pairs) if pairs else float("nan")
