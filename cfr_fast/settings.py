"""Everything that decides what a model computes, checked on the way in."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from cfr_fast.data import Background
from cfr_fast.errors import InputError

REPLACEMENTS = ("attention", "bank", "nearest", "none")
MAPPERS = ("geglu", "mlp")
SCORES = ("discrepancy", "calibrated")


@dataclass(frozen=True)
class Settings:
    """Settings of CFR; every one can be given to ``CFR(...)`` by name.

    Args:
        rgb: RGB extractor, a registry name such as ``embedded``, ``classic`` or ``timm:<model>``.
        xyz: 3D extractor, such as ``normals:embedded``, ``classic`` or ``normals:<model>``.
        rgb_options: options of the RGB extractor.
        xyz_options: options of the 3D extractor.
        size: maps are computed on size×size pixels.
        crop: cut every sample to its object first (at native resolution).
        background: how points off the object are removed: ``auto``, ``plane``, ``distance`` or ``none``.
        shot_views: augmented views of every shot that the networks learn from beside the shot itself (the
            paper: none).
        expanded_distances: carry groups of points to pixels by float32 distances in expanded form, rounding
            included, as the authors' scripts do (see `extractors.groups.expanded_distances`). Goes to the 3D
            extractor, which must know such an option, and to ``predict_tokens``.
        mapper: networks that map one kind of feature to the other: ``geglu``, or CFM's ``mlp``.
        cycle: whether both cycles are in the mappers' loss. CFM is ``mapper="mlp", cycle=False,
            replacement="none", score="discrepancy"``.
        mapper_epochs: passes over shots and views for the mappers (the paper: 100).
        mapper_lr: learning rate of their Adam.
        mapper_pixels: most pixels of a shot in one of their steps, drawn anew every time; None takes all
            (as the paper does). On two real categories 1,024, and even 256, cost no accuracy.
        coreset: share of rows that the memory banks keep.
        bank_background: whether pixels without 3D features enter the banks (the paper's scripts keep them).
        replacement: what replaces unreliable predictions: ``attention`` over retrieved rows, attention over
            the whole ``bank``, the ``nearest`` row to the observed feature, or ``none``.
        theta: cosine distance θ from which a prediction is unreliable; None calibrates it on normal views.
        reliable_share: share of predictions on normal views that the calibrated θ leaves alone.
        candidates: rows of the bank that attention looks at.
        bank_rows: most rows of the bank that candidates are searched in.
        attention_epochs: passes over shots and views for the retriever (the paper: 100).
        attention_lr: learning rate of its Adam (the paper: 1e-4).
        attention_width: width of its projections.
        attention_queries: most pixels of a shot in one step.
        normalize_qk: whether projected queries and keys are L2-normalised.
        threshold: image score above which a sample is anomalous; None calibrates it on normal views.
        calibration_views: further augmented views of every shot that levels are calibrated on.
        score: what the map is made of: CFR's ``discrepancy``, as in the paper, or ``calibrated``: the
            discrepancies together with distances to normal cells, each by the measure of normal views (see
            `cfr_fast.calibrated`).
        cell: with ``calibrated``, side of a cell in pixels of the size×size grid.
        feature_width: with ``calibrated``, most principal directions of each kind of feature.
        whitening: with ``calibrated``, 0 keeps their variances, 1 makes them equal.
        memory_cells: with ``calibrated``, most cells to compare with.
        turns: whether views turn through the full circle, for parts that may lie in any direction; False
            turns them by at most ten degrees.
        flips: whether every second view is mirrored, for parts whose mirror image is as good as they are.
        self_similarity: with ``calibrated``, whether a cell is also held against the other cells of the same
            sample: most parts repeat themselves somewhere.
        false_alarm: share of normal samples that may be labelled anomalous, in (0, 0.5]; None takes the mean
            of normal views plus three standard deviations.
        seed: of everything random.

    Raises:
        InputError: a value outside its range, or a name that does not exist.
    """

    rgb: str = "embedded"
    xyz: str = "normals:embedded"
    rgb_options: dict[str, Any] = field(default_factory=dict)
    xyz_options: dict[str, Any] = field(default_factory=dict)
    size: int = 224
    crop: bool = True
    background: Background = "auto"
    expanded_distances: bool = False
    shot_views: int = 16
    mapper: str = "geglu"
    cycle: bool = True
    mapper_epochs: int = 10
    mapper_lr: float = 1e-3
    mapper_pixels: int | None = 1024
    coreset: float = 0.1
    bank_background: bool = False
    replacement: str = "attention"
    theta: float | None = None
    reliable_share: float = 0.95
    candidates: int = 3
    bank_rows: int = 20_000
    attention_epochs: int = 10
    attention_lr: float = 1e-3
    attention_width: int = 128
    attention_queries: int = 20_000
    normalize_qk: bool = False
    threshold: float | None = None
    calibration_views: int = 8
    score: str = "calibrated"
    cell: int = 8
    feature_width: int = 96
    whitening: float = 0.1
    memory_cells: int = 12_000
    turns: bool = True
    flips: bool = False
    self_similarity: bool = True
    false_alarm: float | None = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("replacement", self.replacement, REPLACEMENTS)
        _one_of("mapper", self.mapper, MAPPERS)
        _one_of("score", self.score, SCORES)
        for name in ("cycle", "expanded_distances", "turns", "flips", "self_similarity"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(name, "true or false", repr(getattr(self, name)))
        _one_of("background", self.background, get_args(Background))
        for name, low in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InputError(name, f"a whole number ≥ {low}", repr(value))
        pixels = self.mapper_pixels
        if pixels is not None and (isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 1):
            raise InputError("mapper_pixels", "a whole number ≥ 1, or None", repr(pixels))
        for name in ("mapper_lr", "attention_lr"):
            if not getattr(self, name) > 0:
                raise InputError(name, "a number > 0", repr(getattr(self, name)))
        for name in ("coreset", "reliable_share"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(name, "a share in (0, 1]", repr(getattr(self, name)))
        if not 0 <= self.whitening <= 1:
            raise InputError("whitening", "a number from 0 to 1", repr(self.whitening))
        if self.false_alarm is not None and not 0 < self.false_alarm <= 0.5:
            raise InputError("false_alarm", "a share in (0, 0.5], or None", repr(self.false_alarm))
        if self.cell > self.size:
            raise InputError("cell", f"at most size, {self.size}", repr(self.cell))
        needs_views = (self.theta is None and self.replacement != "none") or self.score == "calibrated"
        if self.calibration_views == 0 and (needs_views or self.threshold is None):
            raise InputError(
                "calibration_views",
                "at least 1, unless theta and threshold are given and score is 'discrepancy'",
                "0",
            )

    @staticmethod
    def create(**values: Any) -> Settings:
        """Settings from names and values.

        Raises:
            InputError: a name that does not exist, or a value outside its range.
        """
        known = [entry.name for entry in fields(Settings)]
        for name in values:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise InputError("settings", f"names among {', '.join(known)}", f"{name!r}{hint}")
        return Settings(**values)

    def to_dict(self) -> dict[str, Any]:
        """Names and values, JSON-able."""
        return asdict(self)


_LEAST = {
    "size": 16,
    "mapper_epochs": 1,
    "candidates": 1,
    "bank_rows": 1,
    "attention_epochs": 1,
    "attention_width": 1,
    "attention_queries": 1,
    "calibration_views": 0,
    "shot_views": 0,
    "cell": 1,
    "feature_width": 1,
    "memory_cells": 1,
    "seed": 0,
}


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(name, f"one of {', '.join(known)}", repr(value))
