"""What speaks against a cell: how far it lies from normal ones, and from what its other modality predicts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import normalize

from cfr_fast import ops

EVIDENCE = ("RGB bank", "3D bank", "joint bank", "RGB mapper", "3D mapper", "own cells")
"""Distances to normal cells, discrepancies of both predictions, that of RGB after replacement, and the
distance to the sample's other cells, unless that is not wanted."""

APART = 2
"""Cells of a sample that are farther apart than this many rows or columns count as other cells."""


@dataclass(frozen=True, eq=False)
class CellMemory:
    """Normal cells to compare with.

    Args:
        rgb: float [M, dr], unit rows.
        xyz: of the same cells, float [M, dx], unit rows.
        shot: int64 [M], the training sample that each was seen on.
    """

    rgb: Tensor
    xyz: Tensor
    shot: Tensor

    @staticmethod
    def of(rgb: Tensor, xyz: Tensor, shot: Tensor) -> CellMemory:
        """Of features [M, ·] of any length."""
        return CellMemory(normalize(rgb, dim=1), normalize(xyz, dim=1), shot)

    def without(self, shot: int) -> CellMemory:
        """What the other shots show; everything where there is no other."""
        others = self.shot != shot
        if not bool(others.any()):
            return self
        return CellMemory(self.rgb[others], self.xyz[others], self.shot[others])

    def to(self, device: torch.device | str) -> CellMemory:
        """The same on another device."""
        return CellMemory(self.rgb.to(device), self.xyz.to(device), self.shot.to(device))

    def distances(self, rgb: Tensor, xyz: Tensor) -> Tensor:
        """Cosine distances to the nearest row: by RGB, by 3D, and by both at once.

        The joint distance is the mean of both to one and the same row.

        Args:
            rgb: float [C, dr].
            xyz: float [C, dx].

        Returns:
            float [C, 3], not negative.
        """
        unit_rgb, unit_xyz = normalize(rgb, dim=1), normalize(xyz, dim=1)
        both = torch.cat([unit_rgb, unit_xyz], dim=1)
        pairs = ((unit_rgb, self.rgb), (unit_xyz, self.xyz), (both, self._joint))
        nearest = [ops.topk_cosine(query, rows, 1)[0][:, 0] for query, rows in pairs]
        return (1 - torch.stack(nearest, dim=1)).clamp(min=0)

    @cached_property
    def _joint(self) -> Tensor:
        return torch.cat([self.rgb, self.xyz], dim=1)


def own_distances(rgb: Tensor, xyz: Tensor, valid: Tensor) -> Tensor:
    """Cosine distance of every cell to the most similar one elsewhere in the same sample, by both kinds.

    As the joint distance of `CellMemory.distances`. A cell without any other far enough takes the mean of
    those that have one.

    Args:
        rgb: float [C, dr].
        xyz: float [C, dx].
        valid: bool [side, side] with C True cells, in raster order.

    Returns:
        float [C], not negative; ones where no cell has another.
    """
    both = torch.cat([normalize(rgb, dim=1), normalize(xyz, dim=1)], dim=1)
    place = valid.nonzero()
    near = ((place[:, None] - place).abs() <= APART).all(dim=2)
    alike = (both @ both.T / 2).masked_fill(near, -torch.inf)
    nearest = (1 - alike.amax(dim=1)).clamp(min=0) if len(both) else both.new_zeros(0)
    found = nearest.isfinite()
    usual = nearest[found].mean() if bool(found.any()) else nearest.new_ones(())
    return torch.where(found, nearest, usual)


def discrepancy(predicted: Tensor, observed: Tensor) -> Tensor:
    """Euclidean distance between normalised predictions and observations, as in CFR's map: [C, d] → [C]."""
    apart: Tensor = vector_norm(normalize(predicted, dim=1) - normalize(observed, dim=1), dim=1)
    return apart
