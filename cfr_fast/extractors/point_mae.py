"""Features of Point-MAE's frozen encoder on the cloud: ``point_mae``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cfr_fast.data.frame import Frame
from cfr_fast.errors import InputError
from cfr_fast.extractors.base import Batched
from cfr_fast.extractors.field import FeatureField
from cfr_fast.extractors.groups import group_field, nearest_groups
from cfr_fast.extractors.point_encoder import DIM, PointEncoder
from cfr_fast.extractors.point_weights import load_point_weights, published_weights
from cfr_fast.ops import farthest_point_sample, knn

GROUPS = 1024
NEIGHBOURS = 128
NEAR_ORIGIN = 1e-3  # squared metres


class PointMAE(Batched):
    """3D features of Point-MAE's frozen encoder, as the paper's protocol uses it.

    Tokens belong to groups of neighbouring points and are carried to the pixels by `group_field`. A point is
    valid where all three coordinates are non-zero. Clouds of fewer points than groups have fewer groups, and
    groups of fewer points where the cloud has less than their size.

    Args:
        weights: a .pth file with the published names (or a .safetensors file), ``"random"``, or None for the
            published file, downloaded once into torch's hub cache and checked by SHA-256.
        groups: most groups of a cloud (the paper: 1,024).
        neighbours: points of a group (the paper: 128).
        expanded_distances: find and weigh the nearest groups by float32 distances in expanded form, as the
            authors' scripts do; see `nearest_groups`.
        seed: of random weights.
        state: saved weights, instead of `weights`.

    Raises:
        InputError: an option out of its range; weights that cannot be had, read, or are another network's.
    """

    name = "point_mae"
    role = "xyz"

    def __init__(
        self,
        *,
        weights: str | None = None,
        groups: int = GROUPS,
        neighbours: int = NEIGHBOURS,
        expanded_distances: bool = False,
        seed: int = 0,
        state: dict[str, Tensor] | None = None,
    ) -> None:
        self.groups = _at_least_one("groups", groups)
        self.neighbours = _at_least_one("neighbours", neighbours)
        self.expanded_distances = bool(expanded_distances)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = PointEncoder()
        if state is not None:
            load_point_weights(self.network, state, "of the saved model")
        elif weights != "random":
            load_point_weights(self.network, published_weights() if weights is None else Path(weights))
        self.network.requires_grad_(False).float().eval()
        self.device = torch.device("cpu")

    def extract_many(self, frames: Sequence[Frame], size: int) -> list[FeatureField]:
        """Features of the size×size points; a pixel is valid where any of its 3×3 pooled points is.

        A field has a note where its cloud gives fewer groups than `groups`.
        """
        grids = [torch.from_numpy(frame.grid_xyz(size)).to(self.device) for frame in frames]
        masks = [(grid != 0).all(dim=2) for grid in grids]
        clouds = [grid[measured] for grid, measured in zip(grids, masks, strict=True)]
        fields = []
        for points, measured, (tokens, center) in zip(clouds, masks, self.tokens(clouds), strict=True):
            index, weight = nearest_groups(points, points[center], self.expanded_distances)
            field = group_field(tokens, index, weight, measured)
            fields.append(replace(field, notes=self._notes(center.numel(), points.shape[0])))
        return fields

    def tokens(self, clouds: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Features of the groups of every cloud; clouds of equally many groups go through together.

        Args:
            clouds: float32 [N, 3] each, metres.

        Returns:
            For each cloud the tokens, float32 [G, 1152], and the points that the groups are centred on,
            int64 [G]; G ≤ `groups`, and 0 for an empty cloud.
        """
        centers = [group_centers(points, self.groups) for points in clouds]
        found = [(points.new_zeros(0, DIM), center) for points, center in zip(clouds, centers, strict=True)]
        for groups in {center.numel() for center in centers} - {0}:
            alike = [i for i, center in enumerate(centers) if center.numel() == groups]
            chosen = [clouds[i] for i in alike]
            middle = torch.stack([clouds[i][centers[i]] for i in alike])
            neighbours = [
                knn(points, own, min(self.neighbours, points.shape[0]))
                for points, own in zip(chosen, middle, strict=True)
            ]
            with torch.no_grad():
                tokens = self.network(chosen, middle, neighbours)
            for i, own in zip(alike, tokens, strict=True):
                found[i] = own, centers[i]
        return found

    def _notes(self, groups: int, points: int) -> tuple[str, ...]:
        if groups == self.groups:
            return ()
        return (f"{groups:,} groups of points instead of {self.groups:,}: {points:,} points are usable",)

    def config(self) -> dict[str, Any]:
        """Registry name, role and options, weights apart."""
        options = {
            "groups": self.groups,
            "neighbours": self.neighbours,
            "expanded_distances": self.expanded_distances,
        }
        return {"name": self.name, "role": self.role, "options": options}

    def state(self) -> dict[str, Tensor]:
        """The encoder's weights."""
        return {name: value.cpu().contiguous() for name, value in self.network.state_dict().items()}

    def to(self, device: torch.device | str) -> PointMAE:
        """Move the weights; returns self."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self


def group_centers(points: Tensor, count: int) -> Tensor:
    """Rows of the farthest points, from row 0: int64 [G], G ≤ `count`.

    As pointnet2_ops samples: points whose squared norm is at most 1e-3 m² (3.2 cm around the camera, where
    padding would lie) are passed over, the first one apart. G falls short of `count` where fewer are left.
    """
    eligible = points.square().sum(dim=1) > NEAR_ORIGIN
    eligible[:1] = True
    row = eligible.nonzero()[:, 0]
    return row[farthest_point_sample(points[row], min(count, row.numel()))]


def _at_least_one(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(name, "a whole number of at least 1", repr(value))
    return value
