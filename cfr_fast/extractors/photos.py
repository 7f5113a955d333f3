"""Features of a frozen network on the photo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from cfr_fast.data.frame import Frame
from cfr_fast.extractors.base import Batched, Network
from cfr_fast.extractors.field import FeatureField

N = TypeVar("N", bound=Network)


class PhotoExtractor(Batched, Generic[N]):
    """RGB features of a frozen network; every pixel is valid.

    Args:
        name: in the registry.
        backbone: the network.
    """

    role = "rgb"

    def __init__(self, name: str, backbone: N) -> None:
        self.name, self.backbone = name, backbone

    def extract_many(self, frames: Sequence[Frame], size: int) -> list[FeatureField]:
        """Tokens of the photos, bilinear to size×size pixels."""
        images = [torch.from_numpy(frame.rgb).permute(2, 0, 1).float() / 255 for frame in frames]
        tokens = self.backbone.tokens(images)
        valid = torch.ones(size * size, dtype=torch.bool, device=tokens.device)
        return [FeatureField.from_grid(grid, valid, (size, size)) for grid in tokens]

    def config(self) -> dict[str, Any]:
        """Registry name, role and options, weights apart."""
        return {"name": self.name, "role": self.role, "options": self.backbone.options()}

    def state(self) -> dict[str, Tensor]:
        """The network's weights."""
        return self.backbone.state()

    def to(self, device: torch.device | str) -> PhotoExtractor[N]:
        """Move the weights; returns self."""
        self.backbone.to(device)
        return self
