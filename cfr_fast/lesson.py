"""What a model learns from, extracted once for any number of models: shots, and augmented views of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from cfr_fast.calibrate import image_threshold, pixel_threshold, quantile_theta
from cfr_fast.learned import Learned
from cfr_fast.mappers import CyclicMappers, train_mappers
from cfr_fast.memory import KeyValueBank, build_banks, draw_rows
from cfr_fast.ops import Interpolated
from cfr_fast.progress import stage
from cfr_fast.retriever import AttentionRetriever, train_retriever
from cfr_fast.scoring import score_map
from cfr_fast.settings import Settings

T = TypeVar("T")


class PixelFeatures(NamedTuple):
    """The sparse features of one view's pixels, in raster order: the valid ones, or all.

    Args:
        rgb: features of V pixels.
        xyz: of the same pixels.
        valid: bool [size, size], V True pixels unless V counts the background too.
    """

    rgb: Interpolated
    xyz: Interpolated
    valid: Tensor

    def without_background(self) -> PixelFeatures:
        """The valid pixels alone."""
        valid = self.valid.reshape(-1)
        if self.rgb.pixels < valid.numel():
            return self
        rows = valid.nonzero()[:, 0]
        rgb, xyz = (part.select(rows).compact() for part in (self.rgb, self.xyz))
        return PixelFeatures(rgb, xyz, self.valid)


@dataclass(frozen=True, eq=False)
class Lesson:
    """The features that a model is fitted on.

    Parts that several models share, because the settings that they depend on are equal, are trained once.

    Args:
        shots: of the training samples, each with at least one valid pixel.
        views: of augmented views to learn from; empty views are left out.
        calibration: of further views, which levels are calibrated on.
        bank: of the shots, for the memory banks: with pixels of the background where settings say so.
        view_shots, calibration_shots: per view the number of the shot that it shows.
    """

    shots: tuple[PixelFeatures, ...]
    views: tuple[PixelFeatures, ...]
    calibration: tuple[PixelFeatures, ...]
    bank: tuple[PixelFeatures, ...]
    view_shots: tuple[int, ...]
    calibration_shots: tuple[int, ...]
    _trained: dict[Hashable, object] = field(default_factory=dict, repr=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made at the first call with this key."""
        if key not in self._trained:
            self._trained[key] = make()
        found: T = self._trained[key]  # type: ignore[assignment]
        return found


def learn(lesson: Lesson, settings: Settings) -> Learned:
    """`trained`, then both thresholds."""
    learned = trained(lesson, settings)
    with torch.no_grad():
        _calibrate(learned, lesson, settings)
    return learned


def trained(lesson: Lesson, settings: Settings) -> Learned:
    """The mappers and everything that replacement needs, θ included; banks hold shots alone."""
    learned = Learned(_mappers(lesson, settings))
    if settings.replacement != "none":
        pairs, learned.rgb_bank = memory_banks(lesson, settings)
        learned.pairs = draw_rows(pairs, settings.bank_rows, settings.seed)
        if settings.replacement in ("attention", "bank"):
            learned.retriever = _retriever(lesson, settings, learned.pairs)
    if settings.theta is not None:
        learned.theta = settings.theta
    elif learned.rgb_bank is not None:
        with torch.no_grad():
            distances = [learned.distances(view.xyz) for view in lesson.calibration]
        learned.theta = quantile_theta(distances, settings.reliable_share)
    return learned


def _rows(lesson: Lesson) -> list[tuple[Interpolated, Interpolated]]:
    return [(found.rgb, found.xyz) for found in (*lesson.shots, *lesson.views)]


def _mappers(lesson: Lesson, wanted: Settings) -> CyclicMappers:
    options = {
        "epochs": wanted.mapper_epochs,
        "learning_rate": wanted.mapper_lr,
        "most_pixels": wanted.mapper_pixels,
        "seed": wanted.seed,
        "kind": wanted.mapper,
        "cycle": wanted.cycle,
    }

    def train() -> CyclicMappers:
        with torch.enable_grad():
            return train_mappers(_rows(lesson), **options)  # type: ignore[arg-type]

    return lesson.once(("mappers", *options.values()), train)


def memory_banks(lesson: Lesson, wanted: Settings) -> tuple[KeyValueBank, Tensor]:
    """The coresets of the shots, as `build_banks` gives them: pairs chosen by 3D features, and RGB alone."""

    def build() -> tuple[KeyValueBank, Tensor]:
        rgb, xyz = [found.rgb for found in lesson.bank], [found.xyz for found in lesson.bank]
        with stage("Selecting banks"):
            return build_banks(rgb, xyz, wanted.coreset, wanted.seed)

    return lesson.once(("banks", wanted.coreset, wanted.seed), build)


def _retriever(lesson: Lesson, wanted: Settings, pairs: KeyValueBank) -> AttentionRetriever:
    options = {
        "candidates": wanted.candidates if wanted.replacement == "attention" else None,
        "epochs": wanted.attention_epochs,
        "learning_rate": wanted.attention_lr,
        "most_queries": wanted.attention_queries,
        "width": wanted.attention_width,
        "normalize_qk": wanted.normalize_qk,
        "seed": wanted.seed,
    }

    def train() -> AttentionRetriever:
        with torch.enable_grad():
            return train_retriever(_rows(lesson), pairs, **options)  # type: ignore[arg-type]

    return lesson.once(("retriever", wanted.coreset, wanted.bank_rows, *options.values()), train)


def _calibrate(learned: Learned, lesson: Lesson, wanted: Settings) -> None:
    """Both thresholds: as given, or from augmented views of the shots."""
    maps = []
    for view in lesson.calibration:
        found = learned.discrepancy(view.rgb, view.xyz, view.valid, wanted)[0]
        maps.append(score_map(found)[view.valid].cpu().numpy())
    if wanted.threshold is not None:
        learned.threshold = wanted.threshold
    else:
        scores = [float(found.max(initial=0)) for found in maps]
        learned.threshold = image_threshold(scores, wanted.false_alarm)
    learned.pixel_threshold = pixel_threshold(maps, learned.threshold)
