"""Small statistics that the classic extractors are made of.

Cosine is the metric downstream, so values become directions: a scalar turns into an angle (`angular`), a
distribution into its square roots about their mean (`centred_roots`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from cfr_fast.errors import InputError


def angular(value: Tensor, scale: float) -> Tensor:
    """Scalars [...] as points of the unit half circle [..., 2]: the angle is π/2 · tanh(value / scale).

    Two values far apart become opposite, and every scalar has the same norm whatever its size.
    """
    angle = torch.tanh(value / scale) * (torch.pi / 2)
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def soft_bins(value: Tensor, low: float, high: float, count: int) -> Tensor:
    """Triangular membership of values [...] in `count` bins centred from `low` to `high`: [..., count].

    Memberships sum to one; values outside belong to the outermost bins.
    """
    position = (value.clamp(low, high) - low) * ((count - 1) / (high - low))
    centre = torch.arange(count, dtype=value.dtype, device=value.device)
    return (1 - (position[..., None] - centre).abs()).clamp(min=0)


def centred_roots(histogram: Tensor) -> Tensor:
    """Square roots of a histogram [..., bins] (Hellinger) less their mean over the bins."""
    root = histogram.clamp(min=0).sqrt()
    return root - root.mean(dim=-1, keepdim=True)


def to_tokens(maps: Tensor, stride: int) -> Tensor:
    """Means of maps [C, h, w] over stride×stride cells, as tokens [h/stride, w/stride, C]."""
    return avg_pool2d(maps[None], stride)[0].permute(1, 2, 0)


def smooth(tokens: Tensor, sigma: float, support: Tensor | None = None) -> Tensor:
    """Gaussian average of tokens [h, w, C] over the supported ones (bool [h, w]), `sigma` in tokens.

    Normalised convolution: borders and holes lower the support, not the values. Zero where nothing is near.
    """
    h, w, _ = tokens.shape
    rows, cols = _gaussian(h, sigma), _gaussian(w, sigma)
    weight = torch.ones(h, w) if support is None else support.to(tokens.dtype)
    total = rows @ weight @ cols
    value = torch.einsum("ih,hwc,wj->ijc", rows, tokens * weight[..., None], cols)
    return torch.where(total[..., None] > 1e-6, value / total.clamp(min=1e-6)[..., None], 0.0)


def _gaussian(size: int, sigma: float) -> Tensor:
    position = torch.arange(size, dtype=torch.float32)
    return torch.exp(-0.5 * ((position[:, None] - position) / sigma).square())


def check_grid(stride: int, size: int | None = None) -> int:
    """The stride, when it is a whole number of pixels and `size` a multiple of it.

    Raises:
        InputError: otherwise.
    """
    if isinstance(stride, bool) or not isinstance(stride, int) or stride < 1:
        raise InputError("stride", "a whole number of at least 1", str(stride))
    if size is not None and (size < stride or size % stride):
        raise InputError("size", f"a multiple of the stride {stride}", str(size))
    return stride
