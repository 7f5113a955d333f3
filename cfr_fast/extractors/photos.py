"""Features of a frozen network on the photo."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cfr_fast.data.frame import Frame
from cfr_fast.extractors.base import N, OfNetwork
from cfr_fast.extractors.field import FeatureField


class PhotoExtractor(OfNetwork[N]):
    """RGB features of a frozen network; every pixel is valid."""

    role = "rgb"

    def extract_many(self, frames: Sequence[Frame], size: int) -> list[FeatureField]:
        """Tokens of the photos, bilinear to size×size pixels."""
        images = [torch.from_numpy(frame.rgb).permute(2, 0, 1).float() / 255 for frame in frames]
        tokens = self.backbone.tokens(images)
        valid = torch.ones(size * size, dtype=torch.bool, device=tokens.device)
        return [FeatureField.from_grid(grid, valid, (size, size)) for grid in tokens]
