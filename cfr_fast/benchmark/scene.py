"""A made-up part in the paper's protocol: tokens of both modalities, to learn from and to judge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cfr_fast import ops
from cfr_fast.extractors.field import FeatureField
from cfr_fast.extractors.groups import group_field
from cfr_fast.learned import Learned
from cfr_fast.mappers import train_mappers
from cfr_fast.memory import build_banks
from cfr_fast.ops import Interpolated
from cfr_fast.retriever import train_retriever

SIDE, PATCHES, GROUPS, RGB, XYZ = 224, 28, 1024, 768, 1152
VALID = 0.45  # share of pixels on the part


@dataclass(frozen=True, eq=False)
class Scene:
    """What the frozen networks and the neighbour search hand over.

    Args:
        rgb_tokens: float [28, 28, 768].
        xyz_tokens: float [1024, 1152].
        index: int64 [n, 3], the groups of every measured point.
        weight: float [n, 3].
        measured: bool [224, 224] with n True pixels.
    """

    rgb_tokens: Tensor
    xyz_tokens: Tensor
    index: Tensor
    weight: Tensor
    measured: Tensor

    def fields(self) -> tuple[Interpolated, Interpolated, Tensor]:
        """Features of the V valid pixels in token space, and the mask bool [224, 224]."""
        xyz = group_field(self.xyz_tokens, self.index, self.weight, self.measured)
        rgb = FeatureField.from_grid(self.rgb_tokens, xyz.valid, xyz.shape)
        pixel = xyz.valid.nonzero()[:, 0]
        chosen = (field.interpolated.select(pixel).compact() for field in (rgb, xyz))
        return *chosen, xyz.valid.reshape(xyz.shape)  # type: ignore[return-value]


@cache
def scene(seed: int) -> Scene:
    """A disc of undulating height; tokens follow position and a smooth random field, alike for all seeds."""
    draw = torch.Generator().manual_seed(seed)
    line = torch.linspace(-1, 1, SIDE)
    y, x = torch.meshgrid(line, line, indexing="ij")
    measured = x.square() + y.square() < 4 * VALID / math.pi
    height = 0.05 * torch.sin(5 * x) * torch.cos(4 * y)
    points = torch.stack([0.1 * x, 0.1 * y, 0.5 + height], dim=2)[measured]
    centers = ops.farthest_point_sample(points, GROUPS)
    index, weight = ops.three_nn(points, points[centers])
    field = interpolate(torch.randn(1, 8, 7, 7, generator=draw), size=SIDE, mode="bicubic")[0]
    latent = torch.cat([field, x[None], y[None], 20 * height[None]])
    patches = interpolate(latent[None], size=PATCHES, mode="area")[0].flatten(1).T
    groups = latent[:, measured].T[centers]
    rgb = _tokens(patches, RGB, draw).reshape(PATCHES, PATCHES, RGB)
    return Scene(rgb, _tokens(groups, XYZ, draw), index, weight, measured)


def _tokens(latent: Tensor, dim: int, draw: torch.Generator) -> Tensor:
    """Random waves over the latent field, the same for every seed, and noise of the token's own."""
    waves = torch.Generator().manual_seed(dim)
    frequency, phase = torch.randn(latent.shape[1], dim, generator=waves), torch.randn(dim, generator=waves)
    values = torch.sin(latent @ frequency * 0.5 + 3 * phase)
    return values + 0.3 * torch.randn(values.shape, generator=draw)


@cache
def learned() -> Learned:
    """A model of one shot at the paper's sizes, briefly trained; a quarter of another scene is replaced."""
    rgb, xyz, _ = scene(0).fields()
    shots = [(rgb, xyz)]
    mappers = train_mappers(shots, epochs=30, learning_rate=1e-3, seed=0, most_pixels=1024)
    everywhere = whole(scene(0))
    pairs, bank = build_banks([everywhere[0]], [everywhere[1]], 0.1, 0)
    retriever = train_retriever(
        shots, pairs, candidates=3, epochs=2, learning_rate=1e-4, most_queries=2048, width=128,
        normalize_qk=False, seed=0,
    )  # fmt: skip
    model = Learned(mappers, pairs, bank, retriever)
    distances = model.distances(scene(1).fields()[1]).sort().values
    at = round(0.75 * len(distances))
    model.theta = float((distances[at - 1] + distances[at]) / 2)
    return model


def whole(of: Scene) -> tuple[Interpolated, Interpolated]:
    """Features of all pixels, background included, as the paper's banks take them."""
    xyz = group_field(of.xyz_tokens, of.index, of.weight, of.measured)
    return FeatureField.from_grid(of.rgb_tokens, xyz.valid, xyz.shape).interpolated, xyz.interpolated
