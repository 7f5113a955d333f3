"""What fitting leaves behind: networks, banks and thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cfr_fast import ops
from cfr_fast.mappers import CyclicMappers
from cfr_fast.memory import KeyValueBank
from cfr_fast.ops import Interpolated
from cfr_fast.retriever import AttentionRetriever, find_candidates
from cfr_fast.settings import Settings


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
    """

    mappers: CyclicMappers
    pairs: KeyValueBank | None = None
    rgb_bank: Tensor | None = None
    retriever: AttentionRetriever | None = None
    theta: float = float("inf")
    threshold: float = float("inf")
    pixel_threshold: float = float("inf")

    @property
    def widths(self) -> tuple[int, int]:
        """Of RGB and of 3D features."""
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
            settings: of the model.

        Returns:
            s, float [h, w], and the replaced rows, int64 [U].
        """
        predicted_rgb = self.mappers.xyz_to_rgb.map(xyz)
        if self.rgb_bank is None:
            unreliable = torch.empty(0, dtype=torch.int64, device=valid.device)
            replacement = predicted_rgb[unreliable]
        else:
            unreliable = ops.confidence_filter(predicted_rgb, self.rgb_bank, self.theta)
            replacement = self._replacement(rgb.select(unreliable), xyz.select(unreliable), settings)
        predicted_xyz = self.mappers.rgb_to_xyz.map(rgb)
        found = ops.replace_and_score(predicted_rgb, rgb, predicted_xyz, xyz, replacement, unreliable, valid)
        return found, unreliable

    def distances(self, xyz: Interpolated) -> Tensor:
        """Cosine distance of the predictions from V pixels' 3D features to the RGB bank, float [V]."""
        assert self.rgb_bank is not None
        return 1 - ops.topk_cosine(self.mappers.xyz_to_rgb.map(xyz), self.rgb_bank, 1)[0][:, 0]

    def _replacement(self, rgb: Interpolated, xyz: Interpolated, settings: Settings) -> Tensor:
        assert self.rgb_bank is not None
        if self.retriever is None:
            return self.rgb_bank[ops.topk_interpolated(rgb, self.rgb_bank, 1)[:, 0]]
        assert self.pairs is not None
        if settings.replacement == "bank":
            return self.retriever.attend_bank(xyz, self.pairs)
        index = find_candidates(xyz, self.pairs, settings.candidates)
        return self.retriever.attend(xyz, *self._memory, index)

    @cached_property
    def _memory(self) -> tuple[Tensor, Tensor]:
        """Projected keys and composed values of the pair bank: no query has to compute them again."""
        assert self.retriever is not None
        assert self.pairs is not None
        return self.retriever.project_keys(self.pairs), self.retriever.composed_values(self.pairs)
