"""What fitting leaves behind: networks, banks and thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cfr_fast import ops
from cfr_fast.mappers import CyclicMappers
from cfr_fast.memory import KeyValueBank
from cfr_fast.ops import Interpolated
from cfr_fast.retriever import AttentionRetriever, find_candidates
from cfr_fast.settings import Settings

if TYPE_CHECKING:
    from cfr_fast.calibrated import Calibrated


@dataclass(eq=False)
class Learned:
    """The parts of a fitted model.

    Args:
        mappers: the cyclic pair.
        pairs: the key-value bank that attention composes replacements from; None without it.
        rgb_bank: float [M, Dr], what a reliable prediction is close to; None without replacement.
        retriever: composes replacements; None unless replacement is by attention.
        theta: cosine distance to the RGB bank from which a prediction is unreliable.
        threshold: image score above which a sample is anomalous.
        pixel_threshold: level of the anomaly map above which pixels are marked.
        calibrated: what the calibrated score takes; then all other parts work on its cells. None for the
            discrepancy alone.
    """

    mappers: CyclicMappers
    pairs: KeyValueBank | None = None
    rgb_bank: Tensor | None = None
    retriever: AttentionRetriever | None = None
    theta: float = float("inf")
    threshold: float = float("inf")
    pixel_threshold: float = float("inf")
    calibrated: Calibrated | None = None

    @property
    def widths(self) -> tuple[int, int]:
        """Of RGB and of 3D features, as extractors give them."""
        if self.calibrated is not None:
            return self.calibrated.rgb.mean.numel(), self.calibrated.xyz.mean.numel()
        first = self.mappers.rgb_to_xyz.first, self.mappers.xyz_to_rgb.first
        return int(first[0].shape[1]), int(first[1].shape[1])

    def to(self, device: torch.device | str) -> Learned:
        """The same on another device."""
        self.mappers.to(device)
        if self.retriever is not None:
            self.retriever.to(device)
        if self.rgb_bank is not None:
            self.rgb_bank = self.rgb_bank.to(device)
        if self.pairs is not None:
            self.pairs = KeyValueBank(self.pairs.keys.to(device), self.pairs.values.to(device))
        if self.calibrated is not None:
            self.calibrated = self.calibrated.to(device)
        self.__dict__.pop("_memory", None)
        return self

    def discrepancy(
        self, rgb: Interpolated, xyz: Interpolated, valid: Tensor, settings: Settings
    ) -> tuple[Tensor, Tensor]:
        """The discrepancy map s of one sample: predict, filter, replace, score.

        Args:
            rgb: observed features of the V valid pixels, in raster order.
            xyz: of the same pixels.
            valid: bool [h, w] with V True pixels.
                Several samples go at once as rows that follow each other, over joint tokens, and [B, h, w].
            settings: of the model.

        Returns:
            s, float of the shape of `valid`, and the replaced rows, int64 [U], ascending.
        """
        predicted_rgb = self.mappers.xyz_to_rgb.map(xyz)
        unreliable, replacement = self.replacement(predicted_rgb, rgb, xyz, settings)
        predicted_xyz = self.mappers.rgb_to_xyz.map(rgb)
        found = ops.replace_and_score(predicted_rgb, rgb, predicted_xyz, xyz, replacement, unreliable, valid)
        return found, unreliable

    def replacement(
        self, predicted_rgb: Tensor, rgb: Interpolated, xyz: Interpolated, settings: Settings
    ) -> tuple[Tensor, Tensor]:
        """Which predictions are not reliable, and what replaces them.

        Args:
            predicted_rgb: float [V, Dr], from the 3D features.
            rgb, xyz: observed features of the same pixels.
            settings: of the model.

        Returns:
            Rows int64 [U], ascending, and float [U, Dr]; none without a bank.
        """
        if self.rgb_bank is None:
            nothing = torch.empty(0, dtype=torch.int64, device=predicted_rgb.device)
            return nothing, predicted_rgb[nothing]
        unreliable = ops.confidence_filter(predicted_rgb, self.rgb_bank, self.theta)
        return unreliable, self._replacement(rgb, xyz, unreliable, settings)

    def discrepancy_many(
        self,
        rgb: Sequence[Interpolated],
        xyz: Sequence[Interpolated],
        valid: Sequence[Tensor],
        settings: Settings,
    ) -> list[tuple[Tensor, Tensor]]:
        """As `discrepancy` of one sample after the other, in one step for all; at least one sample."""
        joined = Interpolated.joined(rgb), Interpolated.joined(xyz)
        maps, replaced = self.discrepancy(*joined, torch.stack(list(valid)), settings)
        return separated(maps, replaced, [part.pixels for part in rgb])

    def attended(
        self, xyz: Interpolated, rows: Tensor, candidates: int, count: Tensor | None = None
    ) -> Tensor:
        """What attention over the `candidates` nearest pairs composes for the listed rows of 3D features.

        Args:
            xyz: 3D features.
            rows: int64 [U], which of them.
            candidates: number of pairs.
            count: int64 [1], how many of `rows` are real; None: all.

        Returns:
            float [U, Dr], zeros from row `count` on.
        """
        assert self.retriever is not None
        assert self.pairs is not None
        index = find_candidates(xyz, self.pairs, candidates, rows, count)
        return self.retriever.attend(xyz, *self._memory, index, rows, count)

    def distances(self, xyz: Interpolated) -> Tensor:
        """Cosine distance of the predictions from V pixels' 3D features to the RGB bank, float [V]."""
        assert self.rgb_bank is not None
        return 1 - ops.topk_cosine(self.mappers.xyz_to_rgb.map(xyz), self.rgb_bank, 1)[0][:, 0]

    def _replacement(self, rgb: Interpolated, xyz: Interpolated, rows: Tensor, settings: Settings) -> Tensor:
        assert self.rgb_bank is not None
        if self.retriever is None:
            return self.rgb_bank[ops.topk_interpolated(rgb, self.rgb_bank, 1, rows)[:, 0]]
        assert self.pairs is not None
        if settings.replacement == "bank":
            return self.retriever.attend_bank(xyz.select(rows), self.pairs)
        return self.attended(xyz, rows, settings.candidates)

    @cached_property
    def _memory(self) -> tuple[Tensor, Tensor]:
        """Projected keys and composed values of the pair bank: no query has to compute them again."""
        assert self.retriever is not None
        assert self.pairs is not None
        return self.retriever.project_keys(self.pairs), self.retriever.composed_values(self.pairs)


def separated(maps: Tensor, replaced: Tensor, pixels: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """What belongs to each image of a batch.

    Args:
        maps: [B, h, w].
        replaced: int64 [U], ascending rows of all images.
        pixels: rows of each image.

    Returns:
        Per image its map [h, w], and its replaced rows counted from its own first.
    """
    if len(pixels) == 1:
        return [(maps[0], replaced)]
    starts = [0, *accumulate(pixels)][:-1]
    bounds = torch.searchsorted(replaced, torch.tensor(starts[1:], device=replaced.device)).tolist()
    parts = replaced.tensor_split(bounds)
    return [(found, part - start) for found, part, start in zip(maps, parts, starts, strict=True)]
