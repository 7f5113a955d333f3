"""What evaluation asks of a model and of its results; `cfr_fast.CFR` is one such model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.sample import Sample, SampleSource


class Grid(Protocol):
    """The square view of a sample that a model worked on (`cfr_fast.data.frame.Frame`)."""

    def grid_mask(self, mask: NDArray[np.bool_], size: int, /) -> NDArray[np.bool_]:
        """A mask [H, W] of the sample on the frame's size×size grid: padded, nearest, > 0.5."""
        ...

    def grid_rgb(self, size: int, /) -> NDArray[np.uint8]:
        """The photo on the grid: [size, size, 3]."""
        ...

    def grid_xyz(self, size: int, /) -> NDArray[np.float32]:
        """The prepared points on the grid: [size, size, 3], metres, zeros where missing."""
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
    def replaced(self) -> NDArray[np.bool_]:
        """[size, size], pixels whose prediction was replaced."""
        ...

    @property
    def frame(self) -> Grid:
        """Carries the sample to the grid."""
        ...


class Detector(Protocol):
    """A model that learns from a few normal samples."""

    def fit(self, samples: Sequence[Sample | SampleSource], /) -> object:
        """Learn from normal samples."""
        ...

    def predict(self, sample: Sample, /) -> Prediction:
        """Judge one sample."""
        ...


class MethodSet(Protocol):
    """Methods that learn from the same shots and judge the same samples."""

    @property
    def names(self) -> Sequence[str]:
        """Of the methods' rows."""
        ...

    def fit(self, samples: Sequence[Sample | SampleSource], /) -> Mapping[str, float]:
        """Let every method learn; gives the seconds that each took."""
        ...

    def judge(self, sample: Sample, /) -> Iterator[tuple[str, Prediction, float]]:
        """Every method's name, its prediction, and the seconds that this took."""
        ...


class OneMethod:
    """A detector as a set of methods.

    Args:
        name: of its row.
        build: makes the unfitted detector.
    """

    def __init__(self, name: str, build: Callable[[], Detector]) -> None:
        self.names = (name,)
        self._build = build

    def fit(self, samples: Sequence[Sample | SampleSource], /) -> dict[str, float]:
        """As `MethodSet.fit`."""
        started = perf_counter()
        self._detector = self._build()
        self._detector.fit(samples)
        return {self.names[0]: perf_counter() - started}

    def judge(self, sample: Sample, /) -> Iterator[tuple[str, Prediction, float]]:
        """As `MethodSet.judge`."""
        started = perf_counter()
        result = self._detector.predict(sample)
        yield self.names[0], result, perf_counter() - started
