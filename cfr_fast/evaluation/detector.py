"""What evaluation asks of a model and of its results; `cfr_fast.CFR` is one such model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.sample import Sample, SampleSource


class Grid(Protocol):
    """The square view of a sample that a model worked on (`cfr_fast.data.frame.Frame`)."""

    def grid_mask(self, mask: NDArray[np.bool_], size: int, /) -> NDArray[np.bool_]:
        """A mask [H, W] of the sample on the frame's size×size grid: padded, nearest, > 0.5."""
        ...


class Verdict(Protocol):
    """What a model says about one whole sample.

    Args:
        name: of the sample.
        score: higher is more anomalous.
        threshold: score from which on `label` is True; calibrated on normal samples.
        label: True where the sample is found anomalous.
        replaced_fraction: share of the valid pixels whose features were replaced, in [0, 1].
    """

    @property
    def name(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def threshold(self) -> float: ...
    @property
    def label(self) -> bool: ...
    @property
    def replaced_fraction(self) -> float: ...


class Prediction(Verdict, Protocol):
    """A verdict with its maps.

    Args:
        anomaly_map: float32 [H, W] at the sample's resolution.
        pixel_threshold: value of `anomaly_map` from which on `mask` is True.
        mask: bool [H, W].
        raw_map: float32 [size, size], the method's own map s on its grid, not normalised.
        localization_map: float32 [size, size], s divided by the mean of its non-zero entries.
        valid: bool [size, size], prepared pixels that have a point.
        frame: carries masks of the sample to the grid.
    """

    @property
    def anomaly_map(self) -> NDArray[np.float32]: ...
    @property
    def pixel_threshold(self) -> float: ...
    @property
    def mask(self) -> NDArray[np.bool_]: ...
    @property
    def raw_map(self) -> NDArray[np.float32]: ...
    @property
    def localization_map(self) -> NDArray[np.float32]: ...
    @property
    def valid(self) -> NDArray[np.bool_]: ...
    @property
    def frame(self) -> Grid: ...


class Detector(Protocol):
    """A model that learns from a few normal samples."""

    def fit(self, samples: Sequence[Sample | SampleSource], /) -> object:
        """Learn from normal samples."""
        ...

    def predict(self, sample: Sample, /) -> Prediction:
        """Judge one sample."""
        ...
