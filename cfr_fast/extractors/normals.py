"""Features of a frozen network on a rendered normal map."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from cfr_fast.data.frame import Frame
from cfr_fast.errors import InputError
from cfr_fast.extractors.backbone import Backbone
from cfr_fast.extractors.base import N, OfNetwork
from cfr_fast.extractors.field import FeatureField
from cfr_fast.extractors.geometry import Cloud, measured_nearby, normals


def normal_map(cloud: Cloud, window: float = 5.0) -> Tensor:
    """The normals as an image, float32 [3, h, w] in 0 … 1.

    (n + 1)/2 in the axes that normal maps use: x to the right, y up, z to the camera. Missing points take
    the average of the normals around them, weighted by distance, and fade to "facing the camera" where
    nothing is near, so that holes and silhouettes do not print edges of their own.

    Args:
        cloud: organized points [h, w, 3], camera coordinates.
        window: diameter of the plane fits in pixels of a 224 pixel wide image; larger images scale it.
    """
    h, w = cloud.valid.shape
    scale = w / 224
    normal = normals(cloud, max(1.5, window / 2 * scale)) * torch.tensor([1.0, -1.0, -1.0])
    facing = torch.tensor([0.0, 0.0, 1.0])
    if not bool(cloud.valid.any()):
        return ((facing + 1) / 2)[:, None, None].expand(3, h, w).clone()
    filled = _fill(normal, cloud.valid, (1.5 * scale, 4 * scale), facing)
    unit = torch.nn.functional.normalize(filled, dim=2)
    return ((unit + 1) / 2).permute(2, 0, 1).contiguous()


def checked_window(window: float) -> float:
    """A diameter of plane fits that `normal_map` can take.

    Raises:
        InputError: less than 3 pixels.
    """
    if not window >= 3:
        raise InputError("window", "at least 3 pixels", str(window))
    return float(window)


def _fill(values: Tensor, valid: Tensor, sigmas: tuple[float, ...], ground: Tensor) -> Tensor:
    """Normalised convolution at growing scales where values [h, w, 3] are missing, `ground` [3] far away."""
    known = valid.float()
    result = values.permute(2, 0, 1) * known
    seen = torch.cat([result, known[None]])
    for sigma in sigmas:
        down, across = (_blur(length, sigma) for length in valid.shape)
        blurred = down @ seen @ across
        support = blurred[3]
        trust = (support / 0.2).clamp(0, 1) * (1 - known)
        result = result + blurred[:3] / support.clamp(min=1e-6) * trust
        known = known + trust
    return (result + ground[:, None, None] * (1 - known)).permute(1, 2, 0)


@lru_cache(maxsize=16)
def _blur(length: int, sigma: float) -> Tensor:
    """Gaussian smoothing of `length` values as a matrix, symmetric; zeros outside, cut off at 4 σ.

    On the sizes of normal maps two such products take a tenth of the time of filters.
    """
    reach = int(4 * sigma + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    apart = torch.arange(length)[:, None] - torch.arange(length) + reach
    inside = (apart >= 0) & (apart <= 2 * reach)
    matrix = (kernel / kernel.sum())[apart.clamp(0, 2 * reach)] * inside
    return matrix.float()


class NormalsExtractor(OfNetwork[N]):
    """3D features of a frozen network on the normal map: ``normals:<network>``.

    A pixel is valid where a point is measured within 1 % of the image's width.

    Args:
        name: in the registry.
        backbone: the network; another extractor may use it too.
        window: diameter of the plane fits, in pixels of a 224 pixel wide image.
    """

    role = "xyz"

    def __init__(self, name: str, backbone: N, window: float = 5.0) -> None:
        super().__init__(name, backbone)
        self.window = checked_window(window)

    def extract_many(self, frames: Sequence[Frame], size: int) -> list[FeatureField]:
        """Tokens of the normal maps, bilinear to size×size pixels."""
        clouds = [Cloud.of(frame.grid_xyz(size)) for frame in frames]
        tokens = self.backbone.tokens([normal_map(cloud, self.window) for cloud in clouds])
        return [
            FeatureField.from_grid(grid, measured_nearby(cloud.valid).to(grid.device), (size, size))
            for grid, cloud in zip(tokens, clouds, strict=True)
        ]

    def config(self) -> dict[str, Any]:
        """As of every network, and the window."""
        found = super().config()
        return {**found, "options": {"window": self.window, **found["options"]}}


class TimmNormals(NormalsExtractor[Backbone]):
    """3D features of a frozen timm network: ``normals:<model>``.

    Args:
        model: a timm model name.
        window: as in `NormalsExtractor`.
        options: those of `Backbone`.
    """

    def __init__(self, model: str, *, window: float = 5.0, **options: Any) -> None:
        super().__init__(f"normals:{model}", Backbone(model, **options), window)
