"""What every extractor gives: tokens, and the sparse interpolation that carries them to pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import Interpolated


@dataclass(frozen=True, eq=False)
class FeatureField:
    """Pixel features as sparse linear combinations of tokens.

    The feature of pixel p (raster order) is Σ_j weight[j] · tokens[index[j]] for j from offset[p] to
    offset[p + 1] − 1: a matrix in compressed-row form. Weights need not sum to one; a pixel without
    entries has the zero vector.

    Args:
        tokens: float [T, D].
        offset: int64 [P + 1].
        index: int64 [nnz], token of every entry.
        weight: float [nnz].
        valid: bool [P], pixels whose feature means something.
        shape: (h, w) with h·w = P.
        notes: what a user should know about the sample, a sentence each.
    """

    tokens: Tensor
    offset: Tensor
    index: Tensor
    weight: Tensor
    valid: Tensor
    shape: tuple[int, int]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixels = self.shape[0] * self.shape[1]
        for name, expected in (("offset", pixels + 1), ("valid", pixels), ("weight", self.index.numel())):
            found = getattr(self, name).numel()
            if found != expected:
                raise InputError(f"{name} of FeatureField", f"{expected} elements", f"{found}")

    @property
    def dim(self) -> int:
        """D."""
        return int(self.tokens.shape[1])

    @property
    def pixels(self) -> int:
        """P."""
        return self.shape[0] * self.shape[1]

    @property
    def interpolated(self) -> Interpolated:
        """The features without their validity and shape, as ops take them."""
        return Interpolated(self.tokens, self.offset, self.index, self.weight)

    def dense(self) -> Tensor:
        """Features of all pixels, [P, D]."""
        return self.interpolated.dense()

    def to(self, device: torch.device | str) -> FeatureField:
        """The same field on another device."""
        return FeatureField(
            self.tokens.to(device),
            self.offset.to(device),
            self.index.to(device),
            self.weight.to(device),
            self.valid.to(device),
            self.shape,
            self.notes,
        )

    @staticmethod
    def from_dense(features: Tensor, valid: Tensor, shape: tuple[int, int]) -> FeatureField:
        """A field whose tokens are the pixels themselves: features [P, D], valid bool [P]."""
        pixels, device = features.shape[0], features.device
        return FeatureField(
            features,
            torch.arange(pixels + 1, device=device),
            torch.arange(pixels, device=device),
            torch.ones(pixels, dtype=features.dtype, device=device),
            valid,
            shape,
        )

    @staticmethod
    def from_grid(
        tokens: Tensor, valid: Tensor, shape: tuple[int, int], support: Tensor | None = None
    ) -> FeatureField:
        """Tokens on a regular grid, bilinear to the pixels.

        Args:
            tokens: float [h0, w0, D], cell centres evenly spread over the image.
            valid: bool [P].
            shape: (h, w) of the pixels. The weights are those of
                ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``.
            support: bool [h0, w0]; tokens outside take no part and the weights of the others are rescaled
                to sum to one. Pixels without any supported token are zero, and not valid.
        """
        h0, w0, dim = tokens.shape
        h, w = shape
        device = tokens.device
        y0, y1, fy = _axis(h, h0, device)
        x0, x1, fx = _axis(w, w0, device)
        index = torch.stack(
            [(y[:, None] * w0 + x[None, :]).reshape(-1) for y in (y0, y1) for x in (x0, x1)], dim=1
        )
        weight = torch.stack(
            [(a[:, None] * b[None, :]).reshape(-1) for a in (1 - fy, fy) for b in (1 - fx, fx)], dim=1
        )
        if support is not None:
            weight = weight * support.reshape(-1)[index]
            total = weight.sum(1, keepdim=True)
            weight = weight / total.clamp(min=torch.finfo(weight.dtype).tiny)
            valid = valid & (total.squeeze(1) > 0)
        return FeatureField(
            tokens.reshape(h0 * w0, dim),
            torch.arange(0, 4 * h * w + 1, 4, device=device),
            index.reshape(-1),
            weight.reshape(-1).to(tokens.dtype),
            valid,
            shape,
        )


def _axis(size: int, tokens: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper token and the upper one's weight, along one axis (half-pixel centres, clamped)."""
    position = ((torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (tokens / size) - 0.5).clamp(
        min=0
    )
    lower = position.floor().long().clamp(max=tokens - 1)
    return lower, (lower + 1).clamp(max=tokens - 1), position - lower
