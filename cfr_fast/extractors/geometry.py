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


def plane_normals(cloud: Cloud, centre: Tensor, offset: Tensor, radius: float) -> Tensor:
    """Normals of planes fitted to the neighbourhoods of points, unit, towards the camera: float32 [n, 3].

    Neighbours weigh exp(−2 d²/radius²) and nothing beyond `radius` in space, so that surfaces behind a depth
    edge do not take part however near they lie in the image. Where fewer than three neighbours, or only
    neighbours on a line, support the fit, the normal points along the line of sight.

    Args:
        cloud: [h, w] pixels.
        centre: int64 [n], flat indices of measured pixels.
        offset: int64 [K, 2], pixels to look at.
        radius: in units of the cloud.
    """
    points = cloud.points.reshape(-1, 3)
    index, valid = neighbours(cloud, centre, offset)
    difference = points[index] - points[centre][:, None]
    square = difference.square().sum(2)
    weight = torch.exp(-2 / radius**2 * square) * (valid & (square <= radius**2))
    total = 1 + weight.sum(1)  # the centre itself weighs 1
    weighted = difference * weight[..., None]
    mean = weighted.sum(1) / total[:, None]
    covariance = (weighted.transpose(1, 2) @ difference) / total[:, None, None]
    _, normal = smallest_eigenvector(covariance - mean[:, :, None] * mean[:, None, :])
    sight = torch.nn.functional.normalize(-points[centre], dim=1)
    supported = ((weight > 0).sum(1) >= 3) & normal.any(1)
    normal = torch.where(supported[:, None], normal, sight)
    return torch.where((normal * sight).sum(1, keepdim=True) < 0, -normal, normal)


def smallest_eigenvector(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest eigenvalue [n] and a unit eigenvector [n, 3] of symmetric positive 3×3 matrices [n, 3, 3].

    The trigonometric solution of the characteristic polynomial in float64 (Smith, 1961); the eigenvector is
    the largest cross product of two rows of A − λI, zero where all vanish (no direction stands out).
    """
    a = matrix.double()
    trace = a.diagonal(dim1=1, dim2=2).sum(1)
    scale = trace.clamp(min=1e-300)
    a = a / scale[:, None, None]  # now of trace 1
    eye = torch.eye(3, dtype=a.dtype, device=a.device)
    b = a - eye / 3
    p = (b.square().sum((1, 2)) / 6).sqrt().clamp(min=1e-150)
    half_determinant = (torch.linalg.det(b / p[:, None, None]) / 2).clamp(-1, 1)
    value = 1 / 3 + 2 * p * torch.cos(torch.acos(half_determinant) / 3 + 2 * torch.pi / 3)
    rows = a - value[:, None, None] * eye
    cross = torch.stack([torch.linalg.cross(rows[:, i], rows[:, j]) for i, j in ((0, 1), (1, 2), (2, 0))], 1)
    length = cross.norm(dim=2)
    best = length.argmax(1)
    vector = cross[torch.arange(len(a), device=a.device), best]
    longest = length.amax(1, keepdim=True)
    distinct = (longest > 1e-14) & (trace[:, None] > 0)
    vector = torch.where(distinct, vector / longest.clamp(min=1e-300), torch.zeros_like(vector))
    value = (value * scale).clamp(min=0) * (trace > 0)
    return value.to(matrix.dtype), vector.to(matrix.dtype)


def normals(cloud: Cloud, half_window: float) -> Tensor:
    """Unit normals towards the camera, float32 [h, w, 3], zeros at missing points.

    Args:
        cloud: organized points.
        half_window: radius of the fit in pixels, at least 1.5; in space the fit reaches three times as far as
            so many pixels of the median spacing, so that steep surfaces keep their neighbours.
    """
    found = torch.zeros_like(cloud.points)
    centre = cloud.valid.reshape(-1).nonzero().squeeze(1)
    if len(centre) and cloud.spacing > 0:
        radius = 3 * half_window * cloud.spacing
        found.reshape(-1, 3)[centre] = plane_normals(cloud, centre, disk(half_window), radius)
    return found


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
