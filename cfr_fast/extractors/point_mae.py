"""Features of Point-MAE's frozen encoder on the cloud: ``point_mae``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cfr_fast.data.frame import Frame
from cfr_fast.errors import InputError
from cfr_fast.extractors.field import FeatureField
from cfr_fast.extractors.groups import group_field, nearest_groups
from cfr_fast.extractors.point_encoder import DIM, PointEncoder
from cfr_fast.extractors.point_weights import load_point_weights, published_weights
from cfr_fast.ops import farthest_point_sample, knn

GROUPS = 1024
NEIGHBOURS = 128
NEAR_ORIGIN = 1e-3  # squared metres


class PointMAE:
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

    def extract(self, frame: Frame, size: int) -> FeatureField:
        """Features of the size×size points; a pixel is valid where any of its 3×3 pooled points is."""
        cloud = torch.from_numpy(frame.grid_xyz(size)).to(self.device)
        measured = (cloud != 0).all(dim=2)
        points = cloud[measured]
        tokens, center = self.tokens(points)
        index, weight = nearest_groups(points, points[center], self.expanded_distances)
        return group_field(tokens, index, weight, measured)

    def tokens(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the groups of one cloud.

        Args:
            points: float32 [N, 3], metres.

        Returns:
            Tokens, float32 [G, 1152], and the points that the groups are centred on, int64 [G];
            G ≤ `groups`, and 0 for an empty cloud.
        """
        center = group_centers(points, self.groups)
        if center.numel() == 0:
            return points.new_zeros(0, DIM), center
        neighbour = knn(points, points[center], min(self.neighbours, points.shape[0]))
        with torch.no_grad():
            tokens: Tensor = self.network(points, center, neighbour)
        return tokens, center

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
