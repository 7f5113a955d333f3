"""Numbers to colours: heat maps on one common scale, depth, masks."""

from __future__ import annotations

import math
from functools import cache

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from cfr_fast.data.points import measured

RGB = NDArray[np.uint8]

DEFECT = (0, 200, 120)
CONTOUR = (90, 255, 255)
_MISSING = (30, 32, 38)
_HATCH = (58, 62, 72)


@cache
def palette(name: str) -> RGB:
    """One of matplotlib's colour maps as uint8 [256, 3]."""
    shades = matplotlib.colormaps[name](np.linspace(0, 1, 256), bytes=True)
    return np.ascontiguousarray(shades[:, :3], dtype=np.uint8)


def heat(anomaly_map: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """Place scores on the common scale of a run: 0 → 0, the threshold → 1/2, twice the threshold → 1.

    The anchor comes from normal samples alone, not from the picture, so that a normal part looks calm
    beside a defective one. Only where the threshold is not a positive number (nothing was calibrated) does
    the largest score of this very map take its place, at 1.

    Args:
        anomaly_map: [H, W].
        threshold: in the map's units.

    Returns:
        float32 [H, W] in [0, 1].
    """
    top = 2 * threshold if math.isfinite(threshold) and threshold > 0 else float(anomaly_map.max(initial=0))
    return np.asarray(np.clip(anomaly_map / (top or 1.0), 0, 1), dtype=np.float32)


def heat_over(photo: RGB, level: NDArray[np.float32]) -> RGB:
    """Lay heat over a grey, darkened photo; it grows opaque as it grows hot, so that calm parts stay visible.

    Args:
        photo: uint8 [h, w, 3].
        level: [h, w] in [0, 1], from `heat`.
    """
    shade = palette("inferno")[np.round(level * 255).astype(np.intp)]
    opacity = np.minimum(0.9, 1.4 * level)[..., None]
    return np.asarray(np.round((1 - opacity) * gray(photo) * 0.75 + opacity * shade), dtype=np.uint8)


def gray(photo: RGB) -> RGB:
    """The photo's luminance (ITU-R BT.601), as three equal channels."""
    luminance = photo @ np.array([0.299, 0.587, 0.114])
    return np.repeat(np.round(luminance).astype(np.uint8)[..., None], 3, axis=2)


def depth_image(xyz: NDArray[np.float32]) -> RGB:
    """Depth as brightness, near is bright, over the middle 98 % of depths; missing pixels are dark, hatched.

    Args:
        xyz: [h, w, 3], metres, zeros where missing.
    """
    valid: NDArray[np.bool_] = measured(xyz)
    depth = xyz[..., 2]
    image = np.full((*depth.shape, 3), _MISSING, dtype=np.uint8)
    image[np.add.outer(np.arange(depth.shape[0]), np.arange(depth.shape[1])) % 8 < 2] = _HATCH
    if valid.any():
        near, far = np.percentile(depth[valid], (1, 99))
        level = np.clip((far - depth[valid]) / max(far - near, 1e-9), 0, 1)
        # The lowest fifth of the palette is left to missing pixels.
        image[valid] = palette("viridis")[np.round(40 + 215 * level).astype(np.intp)]
    return image


def draw_contour(image: RGB, mask: NDArray[np.bool_], color: tuple[int, int, int] = CONTOUR) -> RGB:
    """A copy with the outline of `mask` (bool [h, w]), two pixels wide or more on large images."""
    width = max(1, min(image.shape[:2]) // 300)
    outline = binary_dilation(mask, iterations=width) & ~binary_erosion(mask, iterations=1)
    drawn = image.copy()
    drawn[outline] = color
    return drawn


def truth_image(photo: RGB, mask: NDArray[np.bool_] | None) -> RGB:
    """The ground truth in green on a grey, darkened photo; None leaves the photo empty."""
    image = np.round(gray(photo) * 0.6).astype(np.uint8)
    if mask is None or not mask.any():
        return image
    image[mask] = np.round(0.35 * image[mask] + 0.65 * np.array(DEFECT)).astype(np.uint8)
    return draw_contour(image, mask, DEFECT)
