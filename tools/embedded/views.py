"""Batches of augmented crops, a function of seed and step alone, and where their points meet."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from tools.embedded.bank import NORMAL, PHOTO, Bank

PHOTOS = 0.6
"""Share of photos among the crops; the rest are normal maps."""

MAGNIFICATION = (0.6, 2.6)
"""Least and most pixels of a crop per pixel of a picture; parts cut out of small photos are magnified too."""


@dataclass(frozen=True)
class Batch:
    """Crops in pairs: 2i and 2i + 1 show the same picture.

    Args:
        images: float32 [B, 3, c, c], 0 … 1.
        warp: float32 [B, 2, 3], from a crop's coordinates (x right, y down, −1 … 1 over its side) to the
            picture's.
    """

    images: Tensor
    warp: Tensor


def make_batch(bank: Bank, size: int, crop: int, seed: int, step: int) -> Batch:
    """The crops of a step.

    The two crops of a pair differ in place, turn, size, exposure and noise, and in the lamp where the bank
    has two. Normals turn with their crops.

    Args:
        bank: of pictures.
        size: B, even.
        crop: side c of a crop, pixels.
        seed, step: all randomness.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, step]))
    pairs = size // 2
    kinds = np.where(rng.random(pairs) < PHOTOS, PHOTO, NORMAL)
    chosen = [int(rng.choice(bank.of_kind(int(kind)))) for kind in kinds]
    side = bank.pictures.shape[2]
    low, high = (math.log(value) for value in MAGNIFICATION)
    pictures, warps, turns = [], [], []
    for index in chosen:
        angle, scale = rng.uniform(-math.pi, math.pi), rng.uniform(low, high)
        half = crop / (side * math.exp(scale))  # of the crop, as a share of the picture's half side
        room = max(0.0, 1 - half)
        centre = rng.uniform(-room, room, 2)
        lights = rng.permutation(2)
        for view in range(2):
            if view:
                angle += rng.uniform(-0.5, 0.5)
                half *= math.exp(rng.uniform(-0.3, 0.3))
                centre = centre + rng.uniform(-0.25, 0.25, 2) * half
            cos, sin = half * math.cos(angle), half * math.sin(angle)
            warps.append([[cos, -sin, centre[0]], [sin, cos, centre[1]]])
            turns.append(angle)
            pictures.append(bank.pictures[index, lights[view]])
    source = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    warp = torch.tensor(np.array(warps), dtype=torch.float32)
    crops = grid_sample(
        source, _positions(warp, crop), mode="bilinear", padding_mode="reflection", align_corners=False
    )
    is_normal = torch.from_numpy(np.repeat(kinds == NORMAL, 2))
    turned = _turned(crops, torch.tensor(turns, dtype=torch.float32))
    images = torch.where(is_normal[:, None, None, None], turned, _exposed(crops, rng))
    amount = torch.from_numpy(rng.uniform(0, 0.02, size).astype(np.float32))[:, None, None, None]
    noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
    return Batch((images + amount * noise).clamp(0, 1), warp)


def meeting_points(batch: Batch, count: int, seed: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places that both crops of a pair show.

    Returns:
        Coordinates in the first and in the second crops, float32 [B/2, count, 2] (x, y in −1 … 1), and bool
        [B/2, count]: well inside the second as well.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, step, 1]))
    pairs = len(batch.images) // 2
    first = torch.from_numpy(rng.uniform(-0.85, 0.85, (pairs, count, 2)).astype(np.float32))
    one, other = batch.warp[0::2], batch.warp[1::2]
    place = first @ one[:, :, :2].transpose(1, 2) + one[:, None, :, 2]
    inverse = torch.linalg.inv(other[:, :, :2])
    second = (place - other[:, None, :, 2]) @ inverse.transpose(1, 2)
    return first, second, (second.abs() < 0.85).all(dim=2)


def _positions(warp: Tensor, crop: int) -> Tensor:
    axis = (torch.arange(crop) + 0.5) / crop * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    here = torch.stack([x, y, torch.ones_like(x)], dim=2).reshape(-1, 3)
    return (here @ warp.transpose(1, 2)).reshape(len(warp), crop, crop, 2)


def _turned(normals: Tensor, angle: Tensor) -> Tensor:
    """Normal maps whose vectors turn as their crops did; x right, y up."""
    x, y, z = (2 * normals - 1).unbind(dim=1)
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    # With y down a crop's axis e is the picture's R e, so a vector n reads Rᵀ n; y up turns the sine's sign.
    return (torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=1) + 1) / 2


def _exposed(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Other exposure, contrast, tint and gamma; some with swapped channels, some grey."""
    count = len(images)

    def drawn(low: float, high: float, *shape: int) -> Tensor:
        values: NDArray[np.float64] = rng.uniform(low, high, (count, *shape))
        return torch.from_numpy(values.astype(np.float32))

    order = np.stack([rng.permutation(3) if rng.random() < 0.25 else np.arange(3) for _ in range(count)])
    images = images[torch.arange(count)[:, None], torch.from_numpy(order)]
    grey = torch.from_numpy(rng.random(count) < 0.1)[:, None, None, None]
    images = torch.where(grey, images.mean(dim=1, keepdim=True), images)
    gain = drawn(0.6, 1.4)[:, None] * drawn(0.85, 1.15, 3)
    contrast = drawn(0.7, 1.3)[:, None, None, None]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = ((images - mean) * contrast + mean).clamp(1e-4, 1) ** drawn(0.7, 1.4)[:, None, None, None]
    return (images * gain[:, :, None, None]).clamp(0, 1)
