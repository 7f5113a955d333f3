"""3D features without weights: FPFH-like histograms of normals, and heights over the local surface."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cfr_fast.data.frame import Frame
from cfr_fast.errors import InputError
from cfr_fast.extractors.base import OneByOne
from cfr_fast.extractors.field import FeatureField
from cfr_fast.extractors.geometry import (
    REACH,
    Cloud,
    disk,
    measured_nearby,
    nearest_measured,
    neighbours,
    normals,
)
from cfr_fast.extractors.statistics import check_grid, smooth, soft_bins

RADII = (0.04, 0.08, 0.16)  # of the object's extent
SAMPLES = 64  # neighbours per radius
BINS = 9  # per angle
RINGS = ((0.0, 0.5), (0.5, 1.0), (1.0, 1.5))  # of the radius
HEIGHTS = 0.15  # weight of a height beside a bin of a histogram
SCALE = 5.0  # brings features to a mean square of about one
PRIOR = 0.3  # of a full neighbourhood
WINDOW = 5.0  # diameter of the plane fits, pixels of a 224 pixel wide image
MAX_REACH = 0.25  # of the image's width: no neighbourhood is searched further out


class ClassicXYZ(OneByOne):
    """Normals relative to each other and heights over the tangent plane, at three radii.

    The token of a cell stands at the measured point nearest to its centre. For each radius r (shares of the
    object's extent, see `Cloud`) about 64 measured neighbours up to 1.5 r give

    - soft histograms of FPFH's three angles α, φ, θ (Rusu et al., 2009) in the Darboux frame of the centre's
      normal and the connecting line,
    - mean and spread of the heights over the centre's tangent plane in three rings, saturating (tanh).

    Neighbours weigh less with distance and where the surface is seen at a grazing angle; a share of a flat
    neighbourhood is added to all, so that holes and silhouettes, which leave few neighbours, pull the
    features to "flat" instead of to noise. Everything is centred on zero, so that a cosine compares shapes
    and not what all neighbourhoods have in common, and independent of units and of rotations about the line
    of sight.

    A pixel is valid where a point is measured within 1 % of the image's width.

    Args:
        stride: pixels per token; sizes must be multiples of it.
        radii: neighbourhoods, as shares of the extent.

    Raises:
        InputError: a stride below 1, radii that are not positive.
    """

    name = "classic"
    role = "xyz"

    def __init__(self, *, stride: int = 4, radii: tuple[float, ...] = RADII) -> None:
        self.stride = check_grid(stride)
        self.radii = tuple(float(radius) for radius in radii)
        if not self.radii or not all(0 < radius <= 1 for radius in self.radii):
            raise InputError("radii", "shares of the object's extent above 0, at most 1", str(radii))

    def extract(self, frame: Frame, size: int) -> FeatureField:
        """Features on size×size pixels.

        Raises:
            InputError: `size` is no multiple of the stride.
        """
        check_grid(self.stride, size)
        cloud = Cloud.of(frame.grid_xyz(size))
        nearest, distance = nearest_measured(cloud.valid)
        cells = torch.arange(size // self.stride) * self.stride + self.stride // 2
        support = distance[cells][:, cells] <= self.stride + REACH * size
        centre = nearest[cells][:, cells][support]
        described = self._describe(cloud, centre, size)
        tokens = torch.zeros(*support.shape, described.shape[1])
        tokens[support] = described
        tokens = smooth(tokens, 0.7, support) * support[..., None]
        return FeatureField.from_grid(tokens, measured_nearby(cloud.valid), (size, size), support)

    def config(self) -> dict[str, Any]:
        """Registry name, role and options."""
        options = {"stride": self.stride, "radii": list(self.radii)}
        return {"name": self.name, "role": self.role, "options": options}

    def state(self) -> dict[str, Tensor]:
        """Nothing: there are no weights."""
        return {}

    def to(self, device: torch.device | str) -> ClassicXYZ:
        """Nothing to move; features are computed on the CPU."""
        return self

    def _describe(self, cloud: Cloud, centre: Tensor, size: int) -> Tensor:
        """Features [n, D] of the points at flat pixel indices `centre`."""
        normal = normals(cloud, max(1.5, WINDOW / 2 * size / 224)).reshape(-1, 3)
        sight = normalize(-cloud.points.reshape(-1, 3), dim=1)
        facing = (normal * sight).sum(1)
        blocks = [_surroundings(cloud, normal, facing, centre, radius, size) for radius in self.radii]
        return torch.cat(blocks, dim=1)


def _surroundings(
    cloud: Cloud, normal: Tensor, facing: Tensor, centre: Tensor, radius: float, size: int
) -> Tensor:
    """Histograms of normals and heights of rings around every centre, at one radius: [n, D]."""
    metric = radius * cloud.extent
    pixels = min(max(metric / max(cloud.spacing, 1e-30), 2.0), MAX_REACH * size)
    offset = disk(pixels, SAMPLES)
    index, found = neighbours(cloud, centre, offset)
    points = cloud.points.reshape(-1, 3)
    line = points[index] - points[centre][:, None]
    length = line.norm(dim=2)
    u = normal[centre][:, None].expand_as(line)
    towards = line / length.clamp(min=1e-30)[..., None]
    v = normalize(torch.linalg.cross(towards, u), dim=2)
    w = torch.linalg.cross(u, v)
    other = normal[index]
    relative = length / max(metric, 1e-30)
    weight = torch.exp(-relative.square()) * facing[index].clamp(min=0.05)
    weight = weight * (found & (relative <= 1.5) & (length > 0))
    prior = PRIOR * float(torch.exp(-(offset.float().norm(dim=1) / pixels).square()).sum())
    total = weight.sum(1, keepdim=True) + prior
    angles = (
        ((v * other).sum(2), 1.0),  # α
        ((u * towards).sum(2), 0.8),  # φ
        (torch.atan2((w * other).sum(2), (u * other).sum(2)), 2.0),  # θ
    )
    blocks = []
    for value, limit in angles:
        flat = soft_bins(torch.zeros(()), -limit, limit, BINS)
        histogram = (soft_bins(value, -limit, limit, BINS) * weight[..., None]).sum(1) + prior * flat
        blocks.append(histogram / total - 1 / BINS)
    height = (line * u).sum(2) / max(metric, 1e-30)
    for inner, outer in RINGS:
        part = weight * (relative >= inner) * (relative < outer)
        mass = part.sum(1) + prior / len(RINGS)
        mean = (height * part).sum(1) / mass
        spread = ((height - mean[:, None]).square() * part).sum(1) / mass
        blocks += [HEIGHTS * torch.tanh(3 * value)[:, None] for value in (mean, spread.sqrt())]
    return SCALE * torch.cat(blocks, dim=1)
