"""All metrics of one row of a table, with what they are on resampled test images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cfr_fast.evaluation.aupro import area_up_to, curve_of
from cfr_fast.evaluation.auroc import image_auroc, pixel_auroc, pixel_auroc_map
from cfr_fast.evaluation.bootstrap import draw_resamples, interval, resampled_areas, resampled_auroc
from cfr_fast.evaluation.confidence import Interval
from cfr_fast.evaluation.level_curves import Defect, defect_of, level_curves
from cfr_fast.evaluation.ranks import defect_ranks
from cfr_fast.evaluation.results import LIMITS, SAMPLED, aupro_key
from cfr_fast.evaluation.scoremaps import checked_pairs


class Truth:
    """What N test images are; shared by all rows.

    Args:
        anomalous: N.
        masks: N ground truths, bool [s, s]; None where one is unknown.
    """

    def __init__(self, anomalous: Sequence[bool], masks: Sequence[NDArray[np.bool_] | None]) -> None:
        known = [mask for mask in masks if mask is not None]
        self.anomalous = list(anomalous)
        self.masks = known if len(known) == len(masks) else None

    @cached_property
    def defects(self) -> list[Defect]:
        """Of every mask."""
        return [defect_of(mask) for mask in self.masks or ()]

    @cached_property
    def resamples(self) -> NDArray[np.float32] | None:
        """As `draw_resamples` gives them."""
        return draw_resamples(self.anomalous)


@dataclass(frozen=True, eq=False)
class Measured:
    """Metrics of one row.

    Args:
        metrics: by name, in [0, 1]; NaN where one has no meaning.
        resampled: float64 [B], for the metrics that have intervals: the same in every resample.
    """

    metrics: dict[str, float]
    resampled: dict[str, NDArray[np.float64]]

    @property
    def intervals(self) -> dict[str, Interval]:
        """Of those metrics that were resampled and have a meaning."""
        return _intervals(self.resampled)

    def gains(self, floor: Measured) -> dict[str, Interval]:
        """Intervals of the differences to another row, both on the same resamples."""
        return _intervals(
            {
                name: values - floor.resampled[name]
                for name, values in self.resampled.items()
                if name in floor.resampled
            }
        )


@dataclass
class Findings:
    """What the metrics of one row need from the test images; one entry for each."""

    localization: list[NDArray[np.float32]] = field(default_factory=list)
    scaled: list[NDArray[np.float32]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def add(self, localization: NDArray[np.float32], raw: NDArray[np.float32], score: float) -> None:
        """Take one image: its localisation map and its raw map, both [s, s], and its score."""
        self.localization.append(np.asarray(localization, dtype=np.float32))
        self.scaled.append(pixel_auroc_map(raw).astype(np.float32))
        self.scores.append(score)

    def measure(self, truth: Truth) -> Measured:
        """The metrics, those of pixels where all ground truth is known; resampled where that is possible."""
        areas = {(limit, thresholds): math.nan for thresholds in (SAMPLED, None) for limit in LIMITS}
        metrics = {"i_auroc": image_auroc(self.scores, truth.anomalous), "p_auroc": math.nan}
        if truth.masks is not None:
            metrics["p_auroc"] = pixel_auroc(self.scaled, truth.masks)
            ranks = defect_ranks(checked_pairs(self.localization, truth.masks))
            curves = {thresholds: curve_of(ranks, thresholds) for thresholds in (SAMPLED, None)}
            areas = {key: area_up_to(*curves[key[1]], key[0]) for key in areas}
        metrics |= {aupro_key(*key): area for key, area in areas.items()}
        return Measured(metrics, {} if truth.resamples is None else self._resampled(truth, truth.resamples))

    def _resampled(self, truth: Truth, weights: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
        found = {"i_auroc": resampled_auroc(self.scores, truth.anomalous, weights)}
        if truth.masks is not None:
            roc = level_curves(self.scaled, truth.defects, by_region=False)
            found["p_auroc"] = resampled_areas(roc, weights, (1.0,))[:, 0]
            pro = level_curves(self.localization, truth.defects, by_region=True)
            areas = resampled_areas(pro, weights, LIMITS)
            found |= {aupro_key(limit, None): area for limit, area in zip(LIMITS, areas.T, strict=True)}
        return found


def _intervals(resampled: dict[str, NDArray[np.float64]]) -> dict[str, Interval]:
    found = {name: interval(values) for name, values in resampled.items()}
    return {name: ends for name, ends in found.items() if ends is not None}
