"""What a model says about one sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.frame import Frame


@dataclass(frozen=True, eq=False)
class Result:
    """Score, label and maps of one sample.

    Args:
        name: the sample's name.
        score: image score, higher is more anomalous: the maximum of s / √(mean of non-zero s), where s is the
            discrepancy map; 0 where s is zero everywhere.
        threshold: the score above which `label` is True.
        label: whether the sample is anomalous.
        anomaly_map: float32 [H, W] at the input's resolution, in the units of `score` and comparable with
            `threshold`.
        mask: bool [H, W], pixels held to be defective; empty when `label` is False.
        pixel_threshold: level of `anomaly_map` above which the pixels of an anomalous sample are marked.
        replaced_fraction: share of the valid pixels whose prediction was replaced.
        raw_map: float32 [size, size], s itself.
        localization_map: float32 [size, size], s / mean of its non-zero entries (the form AUPRO is taken on).
        valid: bool [size, size], pixels with features of both modalities.
        replaced: bool [size, size], pixels whose prediction was replaced.
        frame: the square view of the whole sample, with the cleaned point cloud; the grids lie over it.
        notes: what to know about the sample before trusting the rest, a sentence each: background that was
            not found, fewer groups of points than usual, nothing to judge. Empty as a rule.
    """

    name: str
    score: float
    threshold: float
    label: bool
    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.bool_]
    pixel_threshold: float
    replaced_fraction: float
    raw_map: NDArray[np.float32]
    localization_map: NDArray[np.float32]
    valid: NDArray[np.bool_]
    replaced: NDArray[np.bool_]
    frame: Frame
    notes: tuple[str, ...] = ()

    def verdict(self) -> Verdict:
        """The numbers and notes without the maps, for long runs."""
        numbers = (self.name, self.score, self.threshold, self.label, self.replaced_fraction)
        return Verdict(*numbers, self.notes)


@dataclass(frozen=True)
class Verdict:
    """A result's numbers and notes; fields as in `Result`."""

    name: str
    score: float
    threshold: float
    label: bool
    replaced_fraction: float
    notes: tuple[str, ...] = ()
