"""Features of a frozen network on a rendered normal map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cfr_fast.data.frame import Frame
from cfr_fast.errors import InputError
from cfr_fast.extractors.backbone import Backbone
from cfr_fast.extractors.base import Batched, Network
from cfr_fast.extractors.field import FeatureField
from cfr_fast.extractors.geometry import Cloud, measured_nearby, normals

N = TypeVar("N", bound=Network)


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
    filled = _fill(normal.numpy(), cloud.valid.numpy(), (1.5 * scale, 4 * scale), facing.numpy())
    unit = torch.nn.functional.normalize(torch.from_numpy(filled), dim=2)
    return ((unit + 1) / 2).permute(2, 0, 1).contiguous()


def checked_window(window: float) -> float:
    """A diameter of plane fits that `normal_map` can take.

    Raises:
        InputError: less than 3 pixels.
    """
    if not window >= 3:
        raise InputError("window", "at least 3 pixels", str(window))
    return float(window)


def _fill(
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    sigmas: tuple[float, ...],
    ground: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Normalised convolution at growing scales where values are missing, `ground` far away."""
    weight = valid.astype(np.float32)
    total, share = values * weight[..., None], weight
    result, known = total.copy(), weight.copy()
    for sigma in sigmas:
        blurred = np.stack([gaussian_filter(total[..., c], sigma, mode="constant") for c in range(3)], axis=2)
        support = gaussian_filter(share, sigma, mode="constant")
        trust = np.clip(support / 0.2, 0, 1) * (1 - known)
        result += blurred / np.maximum(support, 1e-6)[..., None] * trust[..., None]
        known += trust
    return np.asarray(result + ground * (1 - known)[..., None], dtype=np.float32)


class NormalsExtractor(Batched, Generic[N]):
    """3D features of a frozen network on the normal map: ``normals:<network>``.

    A pixel is valid where a point is measured within 1 % of the image's width.

    Args:
        name: in the registry.
        backbone: the network; another extractor may use it too.
        window: diameter of the plane fits, in pixels of a 224 pixel wide image.
    """

    role = "xyz"

    def __init__(self, name: str, backbone: N, window: float = 5.0) -> None:
        self.name, self.backbone, self.window = name, backbone, checked_window(window)

    def extract_many(self, frames: Sequence[Frame], size: int) -> list[FeatureField]:
        """Tokens of the normal maps, bilinear to size×size pixels."""
        clouds = [Cloud.of(frame.grid_xyz(size)) for frame in frames]
        tokens = self.backbone.tokens([normal_map(cloud, self.window) for cloud in clouds])
        return [
            FeatureField.from_grid(grid, measured_nearby(cloud.valid).to(grid.device), (size, size))
            for grid, cloud in zip(tokens, clouds, strict=True)
        ]

    def config(self) -> dict[str, Any]:
        """Registry name, role and options, weights apart."""
        options = {"window": self.window, **self.backbone.options()}
        return {"name": self.name, "role": self.role, "options": options}

    def state(self) -> dict[str, Tensor]:
        """The network's weights."""
        return self.backbone.state()

    def to(self, device: torch.device | str) -> NormalsExtractor[N]:
        """Move the weights; returns self."""
        self.backbone.to(device)
        return self


class TimmNormals(NormalsExtractor[Backbone]):
    """3D features of a frozen timm network: ``normals:<model>``.

    Args:
        model: a timm model name.
        window: as in `NormalsExtractor`.
        options: those of `Backbone`.
    """

    def __init__(self, model: str, *, window: float = 5.0, **options: Any) -> None:
        super().__init__(f"normals:{model}", Backbone(model, **options), window)
