"""Thresholds from normal samples alone: what normal views of a part score, and how they spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from cfr_fast.data.augment import augment, mirrored
from cfr_fast.data.sample import Sample

SPREAD = 3.0  # standard deviations above the mean of normal scores
LEARN, CALIBRATE = 0, 1  # two independent series of views
PIXEL_QUANTILE = 0.9995  # share of a normal view's pixels below the pixel threshold


def normal_views(
    samples: Sequence[Sample],
    views: int,
    seed: int,
    purpose: int,
    turns: bool = False,
    flips: bool = False,
) -> Iterator[Sample]:
    """`views` augmented views of every sample; the same seed and purpose give the same views.

    With `turns` they are spread over the full circle, each turned by a random angle of its own share of it.
    With `flips` every second one shows the sample's mirror image.
    """
    for number, sample in enumerate(samples):
        for view in range(views):
            part = (2 * np.pi * view / views, 2 * np.pi * (view + 1) / views) if turns else None
            shown = mirrored(sample) if flips and view % 2 else sample
            yield augment(shown, np.random.default_rng((seed, purpose, number, view)), part)


def quantile_theta(distances: Sequence[Tensor], reliable_share: float) -> float:
    """θ such that `reliable_share` of the predictions on normal views lie closer to the bank.

    Args:
        distances: per view the cosine distances of its predictions to the RGB bank, float [V].
        reliable_share: in (0, 1].

    Returns:
        The quantile over all views together; 1.0 where no view has a valid pixel.
    """
    values = torch.cat(list(distances)).double().cpu().numpy()
    return float(np.quantile(values, reliable_share)) if values.size else 1.0


def image_threshold(scores: Sequence[float], false_alarm: float | None) -> float:
    """The image score above which a sample is anomalous, from the scores of n normal views.

    Args:
        scores: of normal views, at least one.
        false_alarm: share of further normal samples that may lie above; None takes `score_threshold`.

    Returns:
        The upper end of Student's prediction interval for one more score, log scores taken as normal:
        exp(mean + t · std · √(1 + 1/n)), t its (1 − false_alarm) quantile with n − 1 degrees of freedom. It
        knows the variation between the views at hand: views of one part say nothing of other parts. A single
        score, or one that is not positive, has no such interval: then the largest. Infinite where a few
        scores differ by orders of magnitude: then no sample is called anomalous.
    """
    values = np.asarray(scores, dtype=np.float64)
    if false_alarm is None:
        return score_threshold(scores)
    if len(values) < 2 or values.min() <= 0:
        return float(values.max())
    logs, n = np.log(values), len(values)
    quantile = float(student.ppf(1 - false_alarm, n - 1))
    with np.errstate(over="ignore"):  # scores that differ by orders of magnitude allow no finite threshold
        return float(np.exp(logs.mean() + quantile * logs.std(ddof=1) * np.sqrt(1 + 1 / n)))


def score_threshold(scores: Sequence[float]) -> float:
    """Mean plus three standard deviations of the image scores of normal views, never below their maximum."""
    values = np.asarray(scores, dtype=np.float64)
    return float(max(values.max(), values.mean() + SPREAD * values.std()))


def pixel_threshold(maps: Sequence[NDArray[np.float32]], threshold: float) -> float:
    """Level of the anomaly map above which a pixel of an anomalous sample is held to be defective.

    The 99.95 % quantile of the maps of normal views, but at most `threshold`, so that a sample labelled
    anomalous always shows a defect.

    Args:
        maps: score maps of normal views, their invalid pixels left out.
        threshold: the image threshold.
    """
    values = np.concatenate([np.ravel(values) for values in maps]) if maps else np.zeros(0)
    return min(threshold, float(np.quantile(values, PIXEL_QUANTILE))) if values.size else threshold
