"""RGB features without weights: colour, oriented gradients and texture at several scales.

Parts lie in any direction, and a few shots show few of them, so nothing here depends on the rotation of the
part in the image: gradient directions enter through the strengths of their circular harmonics.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from cfr_fast.data.frame import Frame
from cfr_fast.extractors.base import OneByOne
from cfr_fast.extractors.field import FeatureField
from cfr_fast.extractors.statistics import (
    angular,
    centred_roots,
    check_grid,
    smooth,
    soft_bins,
    to_tokens,
)

GRADIENT_SCALES = (0.8, 1.6, 3.2)  # pixels
BAND_EDGES = (0.0, 0.8, 1.6, 3.2, 6.4)  # pixels
POOLING = (0.7, 1.5)  # tokens
NOISE = 1.0  # L* units; gradients below are no structure
HUES = 8
WEIGHTS = (0.15, 0.65, 0.2)  # of colour, gradients and texture in a cosine


class ClassicRGB(OneByOne):
    """Colour, gradient and texture statistics on a grid of tokens; every pixel is valid.

    The photo is resized to size×size pixels (antialiased) and turned to CIE Lab. Three blocks of equal norm,
    each averaged over Gaussians of 0.7 and 1.5 tokens:

    - colour: soft histograms of lightness and of hue (with a bin for grey), as centred square roots;
    - gradients at three scales: mean strength, anisotropy (second circular harmonic of their directions) and
      squareness (fourth), as angles;
    - texture: both signs of band-pass lightness (differences of Gaussians) in four octaves, as angles.

    Args:
        stride: pixels per token; sizes must be multiples of it.

    Raises:
        InputError: a stride below 1.
    """

    name = "classic"
    role = "rgb"

    def __init__(self, *, stride: int = 4) -> None:
        self.stride = check_grid(stride)

    def extract(self, frame: Frame, size: int) -> FeatureField:
        """Features on size×size pixels.

        Raises:
            InputError: `size` is no multiple of the stride.
        """
        check_grid(self.stride, size)
        lab = _lab(frame, size)
        blocks = (self._colour(lab), self._gradients(lab), self._texture(lab))
        share = [weight**0.5 * normalize(block, dim=2) for weight, block in zip(WEIGHTS, blocks, strict=True)]
        tokens = torch.cat(share, dim=2)
        tokens = tokens * tokens.shape[2] ** 0.5
        return FeatureField.from_grid(tokens, torch.ones(size * size, dtype=torch.bool), (size, size))

    def config(self) -> dict[str, Any]:
        """Registry name, role and options."""
        return {"name": self.name, "role": self.role, "options": {"stride": self.stride}}

    def state(self) -> dict[str, Tensor]:
        """Nothing: there are no weights."""
        return {}

    def to(self, device: torch.device | str) -> ClassicRGB:
        """Nothing to move; features are computed on the CPU."""
        return self

    def _colour(self, lab: Tensor) -> Tensor:
        lightness = soft_bins(lab[0], 0, 100, 5).permute(2, 0, 1)
        chroma, hue = lab[1:].norm(dim=0), torch.atan2(lab[2], lab[1])
        direction = torch.arange(HUES) * (2 * torch.pi / HUES)
        distance = (hue[..., None] - direction + torch.pi).remainder(2 * torch.pi) - torch.pi
        share = (1 - distance.abs() * (HUES / (2 * torch.pi))).clamp(min=0).permute(2, 0, 1)
        saturation = (chroma / 25).clamp(max=1)
        hues = torch.cat([1 - saturation[None], share * saturation])
        pooled = [to_tokens(maps, self.stride) for maps in (lightness, hues)]
        return torch.cat([centred_roots(smooth(maps, s)) for maps in pooled for s in POOLING], dim=2)

    def _gradients(self, lab: Tensor) -> Tensor:
        values = []
        for scale in GRADIENT_SCALES:
            strength, angle = _gradient(lab, scale)
            harmonics = [strength]
            harmonics += [strength * f(order * angle) for order in (2, 4) for f in (torch.cos, torch.sin)]
            pooled = to_tokens(torch.stack(harmonics), self.stride)
            for sigma in POOLING:
                mean = smooth(pooled, sigma)
                floor = mean[..., 0] + NOISE
                values.append(angular(torch.log1p(mean[..., 0] / NOISE), 2.0))
                values.append(angular(mean[..., 1:3].norm(dim=2) / floor, 0.5))
                values.append(angular(mean[..., 3:5].norm(dim=2) / floor, 0.5))
        return torch.cat(values, dim=2)

    def _texture(self, lab: Tensor) -> Tensor:
        blurred = [_blur(lab[:1], sigma) for sigma in BAND_EDGES]
        bands = torch.cat([fine - coarse for fine, coarse in pairwise(blurred)])
        pooled = to_tokens(torch.cat([bands.clamp(min=0), (-bands).clamp(min=0)]), self.stride)
        values = [angular(torch.log1p(smooth(pooled, sigma)), 1.0) for sigma in POOLING]
        return torch.cat(values, dim=2).flatten(2)


def _lab(frame: Frame, size: int) -> Tensor:
    """CIE Lab of the photo on size×size pixels, float32 [3, size, size]."""
    image = torch.from_numpy(frame.rgb).permute(2, 0, 1)[None].float() / 255
    image = interpolate(image, (size, size), mode="bilinear", antialias=True).clamp(0, 1)[0]
    return torch.from_numpy(rgb2lab(image.permute(1, 2, 0).numpy()).astype(np.float32)).permute(2, 0, 1)


def _blur(maps: Tensor, sigma: float) -> Tensor:
    if sigma == 0:
        return maps
    return torch.from_numpy(gaussian_filter(maps.numpy(), (0, sigma, sigma), truncate=3))


def _gradient(lab: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Strength and direction [h, w] of the gradient of the channel where it is strongest."""
    blurred = _blur(lab, scale)
    dy, dx = torch.gradient(blurred, dim=(1, 2))
    square, channel = (dx.square() + dy.square()).max(dim=0, keepdim=True)
    angle = torch.atan2(dy.gather(0, channel), dx.gather(0, channel))
    return 2 * scale**0.8 * square[0].sqrt(), angle[0]
