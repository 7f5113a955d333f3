"""PatchCore on the same features as CFR: remember normal features, measure the distance to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from cfr_fast.calibrate import image_threshold, pixel_threshold
from cfr_fast.errors import InputError, NotFittedError
from cfr_fast.judge import Features, judged
from cfr_fast.lesson import Lesson, PixelFeatures, memory_banks
from cfr_fast.ops import Interpolated
from cfr_fast.result import Result
from cfr_fast.scoring import score_map
from cfr_fast.settings import Settings

KINDS = ("rgb", "xyz")
BLOCK = 2**23  # products held at a time: 32 MB
SMOOTHING = 5  # side of the box filter, as in CFR's map


@dataclass(frozen=True, eq=False)
class _Memory:
    """Of one kind of features: the coreset's rows, float [M, D], and what distances are divided by."""

    kind: str
    rows: Tensor
    scale: float = 1.0

    def distances(self, view: PixelFeatures) -> Tensor:
        """Of the view's V pixels, in units of the scale: float [V]."""
        found: Interpolated = getattr(view, self.kind)
        return nearest_distance(found.dense(), self.rows) / self.scale


class PatchCore:
    """Euclidean distance to the nearest remembered feature of a normal pixel (Roth et al., CVPR 2022).

    The memory is the greedy coreset that CFR keeps as well (`Settings.coreset` of the shots' pixels). The map
    is zero where there are no features, then smoothed by CFR's 5×5 box filter, and image score and
    localisation map are taken from it as from CFR's, so that rows of a table differ in the distances alone.
    Of two kinds of features the distances are added, each divided by its mean over the calibration views
    (without such views: over the shots), since their units differ. Features are pixels of the extractors,
    without the original's pooling of neighbours and its reweighting of the image score.

    Args:
        kinds: ``("rgb",)``, ``("xyz",)`` or both.
        settings: coreset, calibration and seed are taken from here; θ and a given threshold are CFR's alone.

    Raises:
        InputError: no kind, or an unknown one.
    """

    def __init__(self, kinds: Sequence[str], settings: Settings) -> None:
        if not kinds or set(kinds) - set(KINDS):
            raise InputError("kinds", f"one or both of {', '.join(KINDS)}", repr(kinds))
        self.kinds, self.settings = tuple(kinds), settings
        self.threshold = self.pixel_threshold = float("inf")
        self._memories: tuple[_Memory, ...] = ()

    def fit_lesson(self, lesson: Lesson) -> PatchCore:
        """Remember the features of the shots, and calibrate scales and thresholds on normal views."""
        pairs, rgb = memory_banks(lesson, self.settings)
        rows = {"rgb": rgb, "xyz": pairs.keys}
        views = [view for view in lesson.calibration if view.rgb.pixels] or list(lesson.shots)
        memories = []
        for kind in self.kinds:
            bare = _Memory(kind, rows[kind])
            mean = float(torch.cat([bare.distances(view) for view in views]).mean())
            memories.append(_Memory(kind, rows[kind], mean if mean > 0 else 1.0))
        self._memories = tuple(memories)
        maps = [score_map(self._map(view))[view.valid].cpu().numpy() for view in views]
        scores = [float(found.max(initial=0)) for found in maps]
        self.threshold = image_threshold(scores, self.settings.false_alarm)
        self.pixel_threshold = pixel_threshold(maps, self.threshold)
        return self

    def predict_features(self, name: str, features: Features) -> Result:
        """Judge the sample called `name`; nothing is ever replaced.

        Raises:
            NotFittedError: fit first.
        """
        if not self._memories:
            raise NotFittedError
        nothing = torch.empty(0, dtype=torch.int64, device=features.valid.device)
        return judged(name, features, self._map(features.pixels), nothing, self)

    def _map(self, view: PixelFeatures) -> Tensor:
        """s, float [size, size]."""
        found = torch.zeros(view.valid.shape, device=view.valid.device)
        found[view.valid] = torch.stack([memory.distances(view) for memory in self._memories]).sum(dim=0)
        return avg_pool2d(found[None], SMOOTHING, stride=1, padding=SMOOTHING // 2)[0]


def nearest_distance(query: Tensor, rows: Tensor) -> Tensor:
    """Euclidean distance of every query to its nearest row.

    The row is found by the expanded form ‖m‖² − 2 q·m, whose rounding may prefer another row that is as near
    to a few units of the last place of ‖m‖²; the distance to it is then taken from the difference itself.

    Args:
        query: float [N, D].
        rows: float [M, D], M ≥ 1.

    Returns:
        float [N].
    """
    squares = rows.square().sum(dim=1)
    found = []
    count = max(1, BLOCK // rows.shape[0])
    for start in range(0, query.shape[0], count):
        block = query[start : start + count]
        nearest = torch.addmm(squares, block, rows.T, alpha=-2).argmin(dim=1)
        found.append((block - rows[nearest]).square().sum(dim=1).sqrt())
    return torch.cat(found) if found else query.new_empty(0)
