"""The pixel features of the paper's protocol from the tokens of its two frozen networks."""

from __future__ import annotations

import torch
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.extractors.field import FeatureField
from cfr_fast.extractors.groups import group_field, nearest_groups


def token_fields(
    rgb_tokens: Tensor, xyz_tokens: Tensor, center_index: Tensor, xyz: Tensor, expanded: bool
) -> tuple[FeatureField, FeatureField]:
    """Carry tokens to pixels: bilinear for RGB; three nearest groups and both averages for 3D.

    A point is valid when all three of its coordinates are non-zero.

    Args:
        rgb_tokens: float32 [Dr, h0, w0], on a regular grid over the image.
        xyz_tokens: float32 [Dx, G], of groups of points.
        center_index: int64 [G], each group's centre among the valid points in raster order.
        xyz: float32 [h, w, 3], organized points in metres, zeros where missing.
        expanded: as in `nearest_groups`.

    Returns:
        RGB and 3D features of h×w pixels.

    Raises:
        InputError: a shape or dtype that does not fit, or a centre that is no valid point.
    """
    _check("rgb_tokens", rgb_tokens, "float32 [Dr, h0, w0]", torch.float32, 3)
    _check("xyz_tokens", xyz_tokens, "float32 [Dx, G]", torch.float32, 2)
    _check("xyz", xyz, "float32 [h, w, 3] with h and w of at least 3", torch.float32, 3)
    groups = xyz_tokens.shape[1]
    _check("center_index", center_index, f"int64 [{groups}]", torch.int64, 1)
    if xyz.shape[2] != 3 or min(xyz.shape[:2]) < 3:
        raise InputError("xyz", "float32 [h, w, 3] with h and w of at least 3", _describe(xyz))
    if center_index.shape[0] != groups:
        raise InputError("center_index", f"int64 [{groups}]", _describe(center_index))
    measured = (xyz != 0).all(dim=2)
    points = xyz[measured]
    low, high = int(center_index.min()), int(center_index.max())
    if low < 0 or high >= points.shape[0]:
        got = f"{low if low < 0 else high}"
        raise InputError("center_index", f"numbers from 0 to {points.shape[0] - 1} (valid points)", got)
    index, weight = nearest_groups(points, points[center_index], expanded)
    shapes = group_field(xyz_tokens.T.contiguous(), index, weight, measured)
    grid = rgb_tokens.permute(1, 2, 0).contiguous()
    return FeatureField.from_grid(grid, torch.ones_like(shapes.valid), shapes.shape), shapes


def _check(name: str, tensor: Tensor, expected: str, dtype: torch.dtype, dims: int) -> None:
    if tensor.dtype != dtype or tensor.dim() != dims or tensor.numel() == 0:
        raise InputError(name, expected, _describe(tensor))


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
