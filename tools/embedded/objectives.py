"""What the network is trained for: a teacher's features, and telling places apart whatever the view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, grid_sample, mse_loss, normalize

from cfr_fast.extractors.embedded_network import CHANNELS
from cfr_fast.extractors.weights import create_network
from tools.embedded.views import Batch, meeting_points

Maps = Sequence[Tensor]
"""Features at strides 8 and 16, float [B, C, h, w] each."""

POINTS = 64
"""Places of each pair that are told apart."""

TEMPERATURE = 0.1


class Teacher:
    """Stages 2 and 3 of timm's ``mobilenetv2_100`` (32 and 64 features at strides 8 and 16), frozen.

    Args:
        path: its weights, trained with padding "same" and pixels in −1 … 1.
        device: to run on.

    Raises:
        InputError: timm is missing, or the file is not there or does not fit.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        network: Any = create_network("mobilenetv2_100", str(path), 0, {"pad_type": "same"}).to(device)
        network.to(memory_format=torch.channels_last)  # a third faster on processors
        self._stem = torch.nn.Sequential(network.conv_stem, network.bn1)
        self._blocks = list(network.blocks)[:4]
        self._level: list[tuple[Tensor, Tensor]] = []

    def standardise(self, images: Tensor) -> None:
        """Take means and deviations of every feature from these images; `__call__` is in their units."""
        maps = self._raw(images)
        self._level = [
            (map.mean(dim=(0, 2, 3), keepdim=True), map.std(dim=(0, 2, 3), keepdim=True)) for map in maps
        ]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Standardised features of images [B, 3, h, w] in 0 … 1."""
        levels = zip(self._raw(images), self._level, strict=True)
        return [(map - mean) / deviation for map, (mean, deviation) in levels]

    @torch.no_grad()
    def _raw(self, images: Tensor) -> list[Tensor]:
        x = self._stem((images * 2 - 1).contiguous(memory_format=torch.channels_last))
        found = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number >= 2:
                found.append(x)
        assert tuple(map.shape[1] for map in found) == CHANNELS
        return found


def distillation(found: Maps, wanted: Maps) -> Tensor:
    """Mean over both strides of the squared error and of one minus the cosine, in standardised features."""
    losses = []
    for map, target in zip(found, wanted, strict=True):
        angle = 1 - (normalize(map, dim=1) * normalize(target, dim=1)).sum(dim=1)
        losses.append(mse_loss(map, target) + angle.mean())
    return torch.stack(losses).mean()


def place_contrast(found: Maps, batch: Batch, seed: int, step: int) -> Tensor:
    """Dense InfoNCE: a place in one crop is to find itself in the other among all places of the batch.

    −log softmax of cosines / `TEMPERATURE`, in both directions (van den Oord et al., 2018; dense as in
    Pinheiro et al., NeurIPS 2020), mean over both strides. Places of the same crop nearer than a cell are no
    negatives.
    """
    first, second, met = meeting_points(batch, POINTS, seed, step)
    first, second, met = (tensor.to(found[0].device) for tensor in (first, second, met))
    if not bool(met.any()):
        return found[0].sum() * 0
    crop = torch.arange(len(first), device=met.device)[:, None].expand_as(met)[met]
    place = first[met]
    losses = []
    for map in found:
        one, other = (_sampled(maps, where)[met] for maps, where in ((map[0::2], first), (map[1::2], second)))
        logits = normalize(one, dim=1) @ normalize(other, dim=1).T / TEMPERATURE
        near = torch.cdist(place, place) < 2 / map.shape[3]
        near &= crop[:, None] == crop[None, :]
        near.fill_diagonal_(False)
        logits = logits.masked_fill(near, -torch.inf)
        target = torch.arange(len(logits), device=logits.device)
        losses.append((cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2)
    return torch.stack(losses).mean()


def _sampled(map: Tensor, where: Tensor) -> Tensor:
    """Features [N, K, C] of maps [N, C, h, w] at coordinates [N, K, 2].

    The network's cells lie half a cell to the right and below (see `EmbeddedNetwork`).
    """
    shifted = where - 1 / map.shape[3]
    return grid_sample(map, shifted[:, None], padding_mode="border", align_corners=False)[:, :, 0].mT
