"""Arrays as the small pictures that a page carries: base64 of JPEG and PNG."""

from __future__ import annotations

import io
from base64 import b64encode

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_QUALITY = 82  # of JPEG: no visible blocks at the sizes shown


def photo(rgb: NDArray[np.uint8]) -> str:
    """uint8 [h, w, 3] as JPEG."""
    return _encoded(Image.fromarray(rgb), "JPEG", quality=_QUALITY)


def flags(mask: NDArray[np.bool_]) -> str:
    """bool [h, w] as PNG of one bit a pixel."""
    return _encoded(Image.fromarray(mask), "PNG", optimize=True)


def levels(values: NDArray[np.floating], scale: float) -> str:
    """Scores [h, w] as 8-bit PNG: v → 255·√(v / scale), so that low scores, where thresholds lie, stay fine.

    Args:
        values: negative ones and NaN become 0.
        scale: what becomes 255; more is cut off.
    """
    share = np.clip(np.nan_to_num(values.astype(np.float32) / scale, nan=0.0), 0.0, 1.0)
    return _gray(np.round(255 * np.sqrt(share)))


def depth(z: NDArray[np.floating]) -> tuple[str, tuple[float, float] | None]:
    """Depth [h, w] in metres as 8-bit PNG: near is bright, 0 is missing.

    Returns:
        The picture, and (near, far) in metres: its brightest and darkest depth, the middle 98 %; None where
        nothing was measured.
    """
    values = z.astype(np.float32)
    valid = np.isfinite(values) & (values > 0)
    image = np.zeros(values.shape, np.float32)
    if not valid.any():
        return _gray(image), None
    near, far = (float(value) for value in np.percentile(values[valid], (1, 99)))
    image[valid] = 1 + 254 * np.clip((far - values[valid]) / max(far - near, 1e-9), 0, 1)
    return _gray(np.round(image)), (near, far)


def _gray(image: NDArray[np.float32]) -> str:
    return _encoded(Image.fromarray(image.astype(np.uint8)), "PNG", optimize=True)


def _encoded(image: Image.Image, kind: str, **options: int) -> str:
    content = io.BytesIO()
    image.save(content, format=kind, **options)
    return b64encode(content.getvalue()).decode("ascii")
