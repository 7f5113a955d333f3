"""Conditioning of frozen features: standardised, and turned to the directions in which normal parts vary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = 1e-6  # of the largest variance: directions below carry rounding only


@dataclass(frozen=True, eq=False)
class Conditioning:
    """x ↦ (x − mean) · basis.

    Args:
        mean: float [D].
        basis: float [D, d].
    """

    mean: Tensor
    basis: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows [N, D] conditioned, [N, d]."""
        return (rows - self.mean) @ self.basis

    def to(self, device: torch.device | str) -> Conditioning:
        """The same on another device."""
        return Conditioning(self.mean.to(device), self.basis.to(device))


def fit_conditioning(rows: Tensor, width: int, whitening: float) -> Conditioning:
    """Standardise every dimension, then keep the `width` principal directions.

    Args:
        rows: float [N, D] normal features, N ≥ 1.
        width: most directions to keep; those whose variance is only rounding are left out as well.
        whitening: directions are divided by λ^(whitening / 2), λ their variance: 0 turns only, 1 whitens.

    Returns:
        The map, in the dtype of the rows.
    """
    values = rows.double()
    mean = values.mean(dim=0)
    deviation = values.std(dim=0, correction=0)
    scale = torch.where(deviation > 0, 1 / deviation.clamp(min=1e-300), torch.ones_like(deviation))
    centred = (values - mean) * scale
    variance, directions = torch.linalg.eigh(centred.T @ centred / len(values))
    variance, directions = variance.flip(0), directions.flip(1)
    count = max(1, min(width, int((variance > SMALLEST * variance[0].clamp(min=1e-300)).sum())))
    # The sign of an eigenvector is arbitrary: the largest entry is made positive, so that runs agree.
    largest = directions.abs().argmax(dim=0, keepdim=True)
    directions = directions * directions.gather(0, largest).sign()
    kept = variance[:count]
    kept = torch.where(kept > 0, kept, torch.ones_like(kept))  # nothing varies: nothing to divide by
    chosen = directions[:, :count] * kept ** (-whitening / 2)
    return Conditioning(mean.to(rows.dtype), (scale[:, None] * chosen).to(rows.dtype))
