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
    """What a model says about one whole sample."""

    @property
    def name(self) -> str:
        """Of the sample."""
        ...

    @property
    def score(self) -> float:
        """Higher is more anomalous."""
        ...

    @property
    def threshold(self) -> float:
        """Score above which `label` is True; calibrated on normal samples."""
        ...

    @property
    def label(self) -> bool:
        """True where the sample is found anomalous."""
        ...

    @property
    def replaced_fraction(self) -> float:
        """Share of the valid pixels whose features were replaced, in [0, 1]."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know about the sample before trusting the rest, a sentence each."""
        ...


class Prediction(Verdict, Protocol):
    """A verdict with its maps."""

    @property
    def anomaly_map(self) -> NDArray[np.float32]:
        """[H, W] at the sample's resolution."""
        ...

    @property
    def pixel_threshold(self) -> float:
        """Level of `anomaly_map` above which pixels are marked; calibrated on normal samples."""
        ...

    @property
    def mask(self) -> NDArray[np.bool_]:
        """[H, W], found defects."""
        ...

    @property
    def raw_map(self) -> NDArray[np.float32]:
        """[size, size], the map s on the method's grid, not normalised."""
        ...

    @property
    def localization_map(self) -> NDArray[np.float32]:
        """[size, size], s divided by the mean of its non-zero entries."""
        ...

    @property
    def valid(self) -> NDArray[np.bool_]:
        """[size, size], pixels that have a point after preparation."""
        ...

    @property
    def frame(self) -> Grid:
        """Carries masks of the sample to the grid."""
        ...


class Detector(Protocol):
    """A model that learns from a few normal samples."""

    def fit(self, samples: Sequence[Sample | SampleSource], /) -> object:
        """Learn from normal samples."""
        ...

    def predict(self, sample: Sample, /) -> Prediction:
        """Judge one sample."""
        ...
