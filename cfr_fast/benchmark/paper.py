"""The paper's configuration end to end, in one process: seconds and peak memory of every stage.

Frozen networks have random weights, on which speed does not depend. Extraction is compared with the bare
forward passes of the two networks, on a ready image and on ready groups of points.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, cast

import numpy as np
import torch

from cfr_fast.benchmark import memory
from cfr_fast.data import Frame, Sample, frame_of, prepare
from cfr_fast.extractors.backbone import TimmExtractor
from cfr_fast.extractors.point_mae import PointMAE, group_centers
from cfr_fast.model import CFR
from cfr_fast.ops import knn
from cfr_fast.progress import watched

EPOCHS = 100  # of the paper, for both the mappers and the retriever
TRAINED = ("Training mappers", "Training retriever")
VALID = 0.45  # share of the pixels that the made-up part covers
REPLACED = 0.25  # share of the valid pixels whose prediction is replaced
BARS = {"fit": 1200.0, "predict": 6.0, "extraction": 1.3, "peak": 4e9}
"""Promises: seconds of fit and predict, extraction over the bare networks, bytes of the process."""


@dataclass(frozen=True)
class Cost:
    """What a stage took.

    Args:
        stage: its name.
        seconds: with the paper's number of epochs, where it has epochs.
        peak: bytes that the process held at most; None where the system does not say.
    """

    stage: str
    seconds: float
    peak: int | None


@dataclass(frozen=True)
class Timing:
    """What one run found.

    Args:
        sample: its name.
        valid: share of valid pixels.
        replaced: share of these whose prediction was replaced.
        epochs: that were run; seconds are carried over to 100.
        extraction: of every part, and of the bare networks; medians.
        ratio: extraction, preparation included, over both bare networks together.
        fit: its stages, and the whole.
        predict: of one sample.
        peak: bytes of the process at any time; None where the system does not say.
    """

    sample: str
    valid: float
    replaced: float
    epochs: int
    extraction: list[Cost]
    ratio: float
    fit: list[Cost]
    predict: Cost
    peak: int | None

    def bars_met(self) -> dict[str, bool]:
        """Which promises hold, of those that could be looked at."""
        found = {"fit": self.fit[-1].seconds, "predict": self.predict.seconds, "extraction": self.ratio}
        if self.peak is not None:
            found["peak"] = self.peak
        return {name: value <= BARS[name] for name, value in found.items()}

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return asdict(self) | {"bars": BARS, "bars_met": self.bars_met()}


class Meter:
    """Times stages and reads the process's peak memory after each."""

    def __init__(self) -> None:
        self.costs: list[Cost] = []
        self.peak: int | None = 0 if memory.available() else None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        self._look()
        if self.peak is not None:
            memory.restart()
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.costs.append(Cost(name, seconds, self._look()))

    def median(self, name: str) -> Cost:
        """Of the stages of this name: median of the seconds, the largest peak."""
        found = [cost for cost in self.costs if cost.stage == name]
        peaks = [cost.peak for cost in found if cost.peak is not None]
        return Cost(name, median(cost.seconds for cost in found), max(peaks, default=None))

    def _look(self) -> int | None:
        if self.peak is None:
            return None
        found = memory.largest()
        self.peak = max(self.peak, found)
        return found


def made_up_sample(side: int = 400) -> Sample:
    """A disc of undulating height under a colourful photo, 45 % of the pixels, without background."""
    line = np.linspace(-1, 1, side)
    y, x = np.meshgrid(line, line, indexing="ij")
    height = 0.05 * np.sin(5 * x) * np.cos(4 * y)
    xyz = np.stack([0.1 * x, 0.1 * y, 0.5 + height], axis=2).astype(np.float32)
    xyz[np.hypot(x, y) > 2 * math.sqrt(VALID / math.pi)] = 0
    waves = [np.sin(a * x + b * y) for a, b in ((9, 4), (-5, 13), (21, -17))]
    rgb = (127 + 120 * np.stack(waves, axis=2)).astype(np.uint8)
    return Sample(rgb, xyz, name="made-up disc")


def measure(sample: Sample, epochs: int = EPOCHS, rounds: int = 3, **settings: Any) -> Timing:
    """Time extraction, fit of one shot, and predict on the same sample, on the CPU.

    Args:
        sample: a normal one.
        epochs: of mappers and retriever.
        rounds: of extraction and of predict; medians count.
        settings: that differ from the paper's preset.
    """
    chosen: dict[str, Any] = {"mapper_epochs": epochs, "attention_epochs": epochs}
    chosen |= {"rgb_options": {"weights": "random"}, "xyz_options": {"weights": "random"}}
    model = CFR.preset("paper-mvtec3d", device="cpu", **chosen | settings)
    meter = Meter()
    parts = _extraction(model, sample, meter, rounds)
    own, bare = (sum(cost.seconds for cost in part) for part in (parts[:-2], parts[-2:]))
    del meter.costs[:]
    start = time.perf_counter()
    with watched(meter.stage):
        model.fit(sample)
    fit = _fit_costs(meter.costs, time.perf_counter() - start, epochs)
    replace_a_quarter(model, sample)
    for _ in range(rounds):
        with meter.stage("predict"):
            result = model.predict(sample)
    predict = meter.median("predict")
    share = float(result.valid.mean())
    return Timing(
        sample.name, share, result.replaced_fraction, epochs, parts, own / bare, fit, predict, meter.peak
    )


@torch.no_grad()
def _extraction(model: CFR, sample: Sample, meter: Meter, rounds: int) -> list[Cost]:
    """Parts of extraction, then both bare networks; in turns, after one round that is not counted."""
    rgb, xyz = cast(tuple[TimmExtractor, PointMAE], model.extractors)
    settings = model.settings
    calls: dict[str, Callable[[], object]] = {}
    frames: list[Frame] = []

    def prepared() -> None:
        frames[:] = [frame_of(prepare(sample, settings.background, settings.seed))]

    calls["preparation"] = prepared
    calls["RGB"] = lambda: rgb.extract(frames[0], settings.size)
    calls["3D"] = lambda: xyz.extract(frames[0], settings.size)
    prepared()
    grid = torch.from_numpy(frames[0].grid_xyz(settings.size))
    points = grid[(grid != 0).all(dim=2)]
    centers = points[group_centers(points, xyz.groups)]
    neighbours = knn(points, centers, min(xyz.neighbours, points.shape[0]))
    image = torch.zeros(1, 3, rgb.backbone.input_size, rgb.backbone.input_size)
    calls["bare RGB network"] = lambda: rgb.backbone.tap(image)
    calls["bare 3D network"] = lambda: xyz.network([points], centers[None], [neighbours])
    for turn in range(rounds + 1):
        for name, call in calls.items():
            with meter.stage(name if turn else "warm-up"):
                call()
    return [meter.median(name) for name in calls]


def _fit_costs(stages: list[Cost], seconds: float, epochs: int) -> list[Cost]:
    """Stages with their epochs carried over, what lay between them, and the sum."""
    rest = seconds - sum(cost.seconds for cost in stages)
    scaled = [
        Cost(cost.stage, cost.seconds * (EPOCHS / epochs if cost.stage in TRAINED else 1), cost.peak)
        for cost in stages
    ]
    scaled.append(Cost("everything else", rest, None))
    peaks = [cost.peak for cost in stages if cost.peak is not None]
    return [*scaled, Cost("fit", sum(cost.seconds for cost in scaled), max(peaks, default=None))]


@torch.no_grad()
def replace_a_quarter(model: CFR, sample: Sample) -> None:
    """Set θ so that a quarter of the sample's predictions is unreliable, whatever random weights give."""
    learned = model.learned
    distances = learned.distances(model.features(sample).xyz).sort().values
    at = round((1 - REPLACED) * len(distances))
    learned.theta = float((distances[at - 1] + distances[at]) / 2)
