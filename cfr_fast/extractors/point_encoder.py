"""The encoder of Point-MAE (Pang et al., ECCV 2022): a mini-PointNet per group, then a transformer.

Modules are named as in the published checkpoint, its prefixes removed. Everything is for evaluation only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

WIDTH = 384
HEADS = 6
DEPTH = 12
EPS = 1e-5  # of the batch norms
TAPPED = (3, 7, 11)  # the blocks, counted from 0, whose outputs are features
DIM = WIDTH * len(TAPPED)
ROWS = 1 << 13  # neighbours that a CPU embeds at once: their 512 channels stay near the cache


class PointEncoder(nn.Module):
    """Features of point groups: the 4th, 8th and 12th block through the one final norm."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = GroupEmbedding()
        self.pos_embed = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, WIDTH))
        self.blocks = BlockList()
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, clouds: Sequence[Tensor], centers: Tensor, neighbours: Sequence[Tensor]) -> Tensor:
        """Tokens of the groups of B clouds that have equally many.

        Args:
            clouds: float32 [N, 3] each; N may differ.
            centers: float32 [B, G, 3], the groups' centres.
            neighbours: int64 [G, K] each, points of every group; K may differ.

        Returns:
            float32 [B, G, 1152].
        """
        x = torch.stack([self.encoder(*cloud) for cloud in zip(clouds, centers, neighbours, strict=True)])
        position = self.pos_embed(centers)
        features = []
        for number, block in enumerate(self.blocks.blocks):
            x = block(x + position)
            if number in TAPPED:
                features.append(self.norm(x))
        return torch.cat(features, dim=2)


class GroupEmbedding(nn.Module):
    """Mini-PointNet: per-point layers, the group's maximum beside every point, layers, the maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = PointLayers(3, 128, 256)
        self.second_conv = PointLayers(512, 512, WIDTH)

    def forward(self, points: Tensor, centers: Tensor, neighbour: Tensor) -> Tensor:
        """Embeddings [G, 384] of the groups, their points taken relative to the centre."""
        groups, size = neighbour.shape
        step = groups if points.is_cuda else max(1, ROWS // max(1, size))
        first, second = self.first_conv.matrices(), self.second_conv.matrices()
        parts = [
            _embed(points[rows] - middle[:, None], first, second)
            for rows, middle in zip(torch.split(neighbour, step), torch.split(centers, step), strict=True)
        ]
        return torch.cat(parts)


class PointLayers(nn.Sequential):
    """Two layers on every point alone, batch norm and ReLU between, for whoever takes their matrices."""

    def __init__(self, channels: int, hidden: int, out: int) -> None:
        layer, norm = nn.Conv1d(channels, hidden, 1), nn.BatchNorm1d(hidden, EPS)
        super().__init__(layer, norm, nn.ReLU(), nn.Conv1d(hidden, out, 1))

    def matrices(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight and bias of both layers, the batch norm folded into the first."""
        state = self.state_dict()
        scale = state["1.weight"] / (state["1.running_var"] + EPS).sqrt()
        weight = state["0.weight"][:, :, 0] * scale[:, None]
        bias = (state["0.bias"] - state["1.running_mean"]) * scale + state["1.bias"]
        return weight, bias, state["3.weight"][:, :, 0], state["3.bias"]


class BlockList(nn.Module):
    """Holds the transformer's blocks under their published names, ``blocks.blocks.N``."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = MLP()

    def forward(self, x: Tensor) -> Tensor:
        """[B, G, 384] to the same shape."""
        x = x + self.attn(self.norm1(x))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class Attention(nn.Module):
    """Self-attention of 6 heads; queries, keys and values without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[B, G, 384] to the same shape."""
        query, key, value = self.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(query, key, value)
        result: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return result


class MLP(nn.Module):
    """Two linear layers with GELU, four times as wide between."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[B, G, 384] to the same shape."""
        result: Tensor = self.fc2(self.act(self.fc1(x)))
        return result


def _embed(groups: Tensor, first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> Tensor:
    """Embeddings [g, 384] of groups [g, K, 3]."""
    weight, bias, out_weight, out_bias = first
    own = linear(linear(groups, weight, bias).relu_(), out_weight, out_bias)
    shared = own.amax(dim=1)
    weight, bias, out_weight, out_bias = second
    # The group's maximum is the same for all of its points: its half of the layer runs once per group.
    half = shared.shape[1]
    hidden = linear(own, weight[:, half:]) + linear(shared, weight[:, :half], bias)[:, None]
    return linear(hidden.relu_(), out_weight).amax(dim=1) + out_bias
