"""Tiny samples, and a detector simple enough that its figures are known in advance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from cfr_fast.data.sample import Category, Sample, SampleSource


def toy_sample(name: str, defect: str = "good", seed: int = 0, shape=(24, 32)) -> Sample:
    """A flat grey part on nothing; a defect is a red square of 6×6 at the part's centre."""
    rng = np.random.default_rng(seed)
    rgb = np.full((*shape, 3), 120, np.uint8) + rng.integers(0, 8, (*shape, 3), dtype=np.uint8)
    xyz = np.zeros((*shape, 3), np.float32)
    xyz[4:-4, 4:-4] = (0.0, 0.0, 0.5)
    xyz[4:-4, 4:-4, 2] += rng.normal(0, 1e-3, (shape[0] - 8, shape[1] - 8))
    truth = np.zeros(shape, bool)
    if defect != "good":
        truth[9:15, 12:18] = True
        rgb[truth] = (200, 30, 30)
    return Sample(rgb, xyz, truth, name, defect)


def toy_category(name: str = "toy", normal: int = 3, defective: int = 3, train: int = 5) -> Category:
    def source(folder: str, defect: str, index: int, seed: int) -> SampleSource:
        full = f"{folder}/{defect}/{index:03d}"
        return SampleSource(full, partial(toy_sample, full, defect, seed), defect)

    test = [source("test", "good", i, 100 + i) for i in range(normal)]
    test += [source("test", "red", i, 200 + i) for i in range(defective)]
    return Category(name, tuple(source("train", "good", i, i) for i in range(train)), tuple(test))


@dataclass(frozen=True, eq=False)
class ToyFrame:
    sample: Sample

    def grid_mask(self, mask, size):
        pick = (np.arange(size) * np.array([[mask.shape[0]], [mask.shape[1]]])) // size
        return mask[np.ix_(*pick)]

    def grid_rgb(self, size):
        return self.grid_mask(self.sample.rgb, size)

    def grid_xyz(self, size):
        return self.grid_mask(self.sample.xyz, size)


@dataclass(frozen=True)
class ToyResult:
    name: str
    score: float
    threshold: float
    label: bool
    anomaly_map: np.ndarray
    mask: np.ndarray
    pixel_threshold: float
    replaced_fraction: float
    raw_map: np.ndarray
    localization_map: np.ndarray
    valid: np.ndarray
    replaced: np.ndarray
    frame: ToyFrame


class ToyDetector:
    """Redness beyond the training samples' mean; the seed only shifts the threshold."""

    def __init__(self, seed: int = 0, size: int = 16) -> None:
        self.seed, self.size, self.names = seed, size, None

    def fit(self, samples):
        loaded = [sample.load() if isinstance(sample, SampleSource) else sample for sample in samples]
        self.names = [sample.name for sample in loaded]
        return self

    def predict(self, sample: Sample) -> ToyResult:
        red = sample.rgb[..., 0].astype(np.float32) - sample.rgb[..., 1]
        score_map = np.where(sample.valid, np.clip(red, 1, None), 0).astype(np.float32)
        frame = ToyFrame(sample)
        raw = frame.grid_mask(score_map, self.size)
        threshold = 30.0 + self.seed
        return ToyResult(
            name=sample.name,
            score=float(score_map.max()),
            threshold=threshold,
            label=bool(score_map.max() > threshold),
            anomaly_map=score_map,
            mask=score_map > threshold,
            pixel_threshold=threshold,
            replaced_fraction=0.25,
            raw_map=raw,
            localization_map=raw / raw[raw > 0].mean(),
            valid=frame.grid_mask(sample.valid, self.size),
            replaced=frame.grid_mask(sample.valid & (red > threshold), self.size),
            frame=frame,
        )


def with_test(category: Category, *samples: Sample) -> Category:
    """The category with these test samples, whose listing says nothing about their defects."""
    return replace(category, test=tuple(SampleSource(s.name, partial(_same, s)) for s in samples))


def _same(sample: Sample) -> Sample:
    return sample
