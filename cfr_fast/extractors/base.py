"""What the pipeline asks of a frozen extractor."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from cfr_fast.data.frame import Frame
from cfr_fast.extractors.field import FeatureField


class Extractor(Protocol):
    """A frozen map from a frame to pixel features; deterministic, without training.

    `name` is its registry name, for example ``classic`` or ``timm:resnet18``; `role` says which of the two
    modalities it describes, ``rgb`` or ``xyz``.
    """

    name: str
    role: str

    def extract(self, frame: Frame, size: int) -> FeatureField:
        """Features of `frame` on a size×size grid of pixels (raster order)."""
        ...

    def config(self) -> dict[str, Any]:
        """What builds the same extractor again, weights apart; JSON-able.

        ``{"name": registry name, "role": "rgb" or "xyz", "options": {...}}``.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """The frozen weights (empty where there are none)."""
        ...

    def to(self, device: torch.device | str) -> Extractor:
        """Move the weights; returns self."""
        ...
