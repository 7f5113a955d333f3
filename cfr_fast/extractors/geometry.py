"""Local geometry of organized clouds: neighbourhoods, plane fits, normals, the object's extent.

Everything works on lists of measured pixels, never across missing points; distances are in the units of the
cloud and scales are relative to its extent or to the spacing of its pixels, so units do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

REACH = 0.01
"""How far 3D features reach beyond measured points, as a share of the image's width."""


@dataclass(frozen=True, eq=False)
class Cloud:
    """An organized cloud.

    Args:
        points: float32 [h, w, 3], zeros where missing.
        valid: bool [h, w].
        extent: diameter of the object: twice the 90th percentile of the distances to the centroid (the same
            in every pose, and outliers do not move it). 0 where no point is measured.
        spacing: median distance between horizontally or vertically adjacent measured points.
    """

    points: Tensor
    valid: Tensor
    extent: float
    spacing: float

    @staticmethod
    def of(xyz: NDArray[np.float32] | Tensor) -> Cloud:
        """The cloud of organized points [h, w, 3]."""
        points = torch.as_tensor(xyz, dtype=torch.float32).contiguous()
        valid = (points != 0).any(dim=2)
        measured = points[valid]
        if not len(measured):
            return Cloud(points, valid, 0.0, 0.0)
        radius = (measured - measured.mean(dim=0)).norm(dim=1)
        steps = [
            (points[1:] - points[:-1]).norm(dim=2)[valid[1:] & valid[:-1]],
            (points[:, 1:] - points[:, :-1]).norm(dim=2)[valid[:, 1:] & valid[:, :-1]],
        ]
        step = torch.cat(steps)
        extent = 2 * float(radius.quantile(0.9))
        return Cloud(points, valid, extent, float(step.median()) if len(step) else 0.0)


def disk(radius: float, count: int | None = None) -> Tensor:
    """Pixel offsets (dy, dx), int64 [K, 2], of a disk without its centre.

    With `count` only about so many, spread evenly over the area (a sunflower spiral, rounded to pixels).
    """
    if count is None:
        reach = int(radius)
        axis = torch.arange(-reach, reach + 1)
        offset = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=2).reshape(-1, 2)
        return offset[(offset.square().sum(1) <= radius**2) & offset.any(1)]
    step = torch.arange(count, dtype=torch.float64) + 0.5
    angle, distance = step * (np.pi * (3 - np.sqrt(5))), radius * (step / count).sqrt()
    offset = torch.stack([distance * angle.sin(), distance * angle.cos()], 1).round().long()
    offset = torch.tensor(sorted(set(map(tuple, offset.tolist()))))
    return offset[offset.any(1)]


def neighbours(cloud: Cloud, centre: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels at fixed offsets around centres.

    Args:
        cloud: [h, w] pixels.
        centre: int64 [n], flat pixel indices.
        offset: int64 [K, 2].

    Returns:
        Flat indices int64 [n, K] (clamped at the border) and bool [n, K]: inside the image and measured.
    """
    h, w = cloud.valid.shape
    y = (centre // w)[:, None] + offset[:, 0]
    x = (centre % w)[:, None] + offset[:, 1]
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    index = y.clamp(0, h - 1) * w + x.clamp(0, w - 1)
    return index, inside & cloud.valid.reshape(-1)[index]


def normals(cloud: Cloud, half_window: float) -> Tensor:
    """Unit normals of planes fitted around points, towards the camera: float32 [h, w, 3], zeros if missing.

    Neighbours weigh exp(−2 d²/r²) and nothing beyond r in space, so that surfaces behind a depth edge do not
    take part however near they lie in the image. r is three times as far as the window's half at the median
    spacing, so that steep surfaces keep their neighbours. Where fewer than three neighbours, or only
    neighbours on a line, support the fit, the normal points along the line of sight.

    Args:
        cloud: organized points.
        half_window: radius of the fit in pixels, at least 1.5.
    """
    found = torch.zeros_like(cloud.points)
    if not (bool(cloud.valid.any()) and cloud.spacing > 0):
        return found
    box = _bounds(cloud.valid)
    valid = cloud.valid[box]
    points = cloud.points[box]
    normal, supported = _fitted(points, valid, disk(half_window), 3 * half_window * cloud.spacing)
    here = points[valid]
    sight = torch.nn.functional.normalize(-here, dim=1)
    normal = torch.where((supported & normal.any(1))[:, None], normal, sight)
    towards = torch.where((normal * sight).sum(1, keepdim=True) < 0, -normal, normal)
    found[box][valid] = towards
    return found


def _bounds(mask: Tensor) -> tuple[slice, slice]:
    """The smallest rectangle that holds all of a mask which holds something."""
    lines, columns = (mask.any(dim=axis).nonzero() for axis in (1, 0))
    return (
        slice(int(lines[0]), int(lines[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )


def _fitted(points: Tensor, valid: Tensor, offset: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Normals [n, 3] of planes around the valid points [h, w, 3], of either sign, and bool [n]: supported.

    One pass over the whole grid per offset: shifting images costs less than gathering lists of neighbours.
    """
    reach = int(offset.abs().max())
    h, w = valid.shape
    here = points.permute(2, 0, 1).contiguous()
    around = torch.nn.functional.pad(here, (reach,) * 4)
    inside = torch.nn.functional.pad(valid, (reach,) * 4)
    total, count = torch.ones(h, w), torch.zeros(h, w, dtype=torch.int32)  # the point itself weighs 1
    mean, products = torch.zeros(3, h, w), torch.zeros(6, h, w)
    for dy, dx in offset.tolist():
        area = slice(reach + dy, reach + dy + h), slice(reach + dx, reach + dx + w)
        difference = around[:, area[0], area[1]] - here
        square = difference.square().sum(dim=0)
        near = inside[area] & (square <= radius**2)
        weight = square.mul_(-2 / radius**2).exp_().mul_(near)
        count += near
        total += weight
        weighted = difference * weight
        mean += weighted
        products[:3].addcmul_(weighted[:1], difference)
        products[3:5].addcmul_(weighted[1:2], difference[1:])
        products[5].addcmul_(weighted[2], difference[2])
    share = total[valid]
    centre = mean[:, valid] / share
    xx, xy, xz, yy, yz, zz = products[:, valid] / share
    x, y, z = centre
    xx, xy, xz, yy, yz, zz = xx - x * x, xy - x * y, xz - x * z, yy - y * y, yz - y * z, zz - z * z
    covariance = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], dim=1).view(-1, 3, 3)
    return smallest_eigenvector(covariance)[1], count[valid] >= 3


def smallest_eigenvector(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest eigenvalue [n] and a unit eigenvector [n, 3] of symmetric positive 3×3 matrices [n, 3, 3].

    The trigonometric solution of the characteristic polynomial in float64 (Smith, 1961); the eigenvector is
    the largest cross product of two rows of A − λI, zero where all vanish (no direction stands out).
    """
    a = matrix.double()
    trace = a[:, 0, 0] + a[:, 1, 1] + a[:, 2, 2]
    scale = trace.clamp(min=1e-300)
    xx, xy, xz, yy, yz, zz = (a[:, i, j] / scale for i in range(3) for j in range(i, 3))  # of trace 1 now
    x, y, z = xx - 1 / 3, yy - 1 / 3, zz - 1 / 3
    mixed = xy * xy + xz * xz + yz * yz
    p = ((x * x + y * y + z * z + 2 * mixed) / 6).sqrt().clamp(min=1e-150)
    determinant = x * (y * z - yz * yz) - xy * (xy * z - yz * xz) + xz * (xy * yz - y * xz)
    half = (determinant / (2 * p * p * p)).clamp(-1, 1).nan_to_num(0)
    value = 1 / 3 + 2 * p * torch.cos(torch.acos(half) / 3 + 2 * torch.pi / 3)
    rows = (xx - value, xy, xz), (xy, yy - value, yz), (xz, yz, zz - value)
    crosses = [_cross(rows[i], rows[j]) for i, j in ((0, 1), (1, 2), (2, 0))]
    vector, longest = crosses[0]
    for other, length in crosses[1:]:
        vector = torch.where((length > longest)[:, None], other, vector)
        longest = torch.maximum(longest, length)
    distinct = ((longest > 1e-28) & (trace > 0))[:, None]
    vector = torch.where(distinct, vector / longest.sqrt().clamp(min=1e-300)[:, None], 0)
    value = (value * scale).clamp(min=0) * (trace > 0)
    return value.to(matrix.dtype), vector.to(matrix.dtype)


Row = tuple[Tensor, Tensor, Tensor]


def _cross(a: Row, b: Row) -> tuple[Tensor, Tensor]:
    """Cross products [n, 3] and their squared lengths [n]."""
    parts = [a[i] * b[j] - a[j] * b[i] for i, j in ((1, 2), (2, 0), (0, 1))]
    return torch.stack(parts, dim=1), parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2


def nearest_measured(valid: Tensor) -> tuple[Tensor, Tensor]:
    """For every pixel the flat index of the nearest measured one (int64 [h, w]) and how far it is, in pixels.

    Without any measured pixel the distances are infinite and the indices 0.
    """
    h, w = valid.shape
    if not bool(valid.any()):
        return torch.zeros(h, w, dtype=torch.int64), torch.full((h, w), torch.inf)
    distance, (y, x) = distance_transform_edt(~valid.numpy(), return_indices=True)
    return torch.from_numpy(y.astype(np.int64) * w + x), torch.from_numpy(distance.astype(np.float32))


def measured_nearby(valid: Tensor) -> Tensor:
    """Which pixels have a measured point within `REACH` (bool [h·w]).

    3D features mean something there: defects often swallow the depth itself, so the field reaches a little
    over holes and rims, where the features are those of the surroundings.
    """
    _, distance = nearest_measured(valid)
    return (distance <= max(1.5, REACH * valid.shape[1])).reshape(-1)
