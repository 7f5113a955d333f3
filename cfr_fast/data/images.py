"""Photos, masks and 16-bit grey images, through Pillow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cfr_fast.data.files import PathLike, reading, require_plausible_size, write_atomically
from cfr_fast.errors import InputError

_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
_ORIENTATION_TAG = 0x0112


def read_rgb(path: PathLike) -> NDArray[np.uint8]:
    """Read a photo (png, jpg, bmp, tiff, or anything else that Pillow decodes).

    Grey images become three equal channels, alpha is dropped, 16 bits a colour channel are cut to the
    upper 8. A 16-bit grey image is refused (it is a depth image), and so is an EXIF orientation that would
    turn the picture, because the cloud knows nothing of it.

    Returns:
        uint8 [H, W, 3].

    Raises:
        InputError: missing, corrupt, truncated or unsuitable file.
    """
    with reading(path, "image"), Image.open(path) as image:
        require_plausible_size(path, image.height, image.width)
        if image.mode not in _EIGHT_BIT_MODES:
            raise InputError(
                str(path), "a colour or 8-bit grey photo", f"an image of mode {image.mode} (depth?)"
            )
        # Asked before decoding: Pillow turns oriented TIFFs on its own while it loads them.
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        if orientation not in (0, 1):
            raise InputError(
                str(path),
                "pixels stored upright, as the cloud's are",
                f"EXIF orientation {orientation} (save it again without)",
            )
        return np.array(image.convert("RGB"))


def read_mask(path: PathLike) -> NDArray[np.bool_]:
    """Read a ground truth: any non-zero value (class id, grey or colour; alpha ignored) is a defect.

    Returns:
        bool [H, W].

    Raises:
        InputError: missing, corrupt or truncated file.
    """
    with reading(path, "mask"), Image.open(path) as image:
        require_plausible_size(path, image.height, image.width)
        values = np.asarray(image)
        if values.ndim == 3:
            return np.asarray(values[..., : 1 if image.mode in ("LA", "PA") else 3].any(axis=2))
        return np.asarray(values != 0)


def read_uint16(path: PathLike) -> NDArray[np.uint16]:
    """Read a 16-bit grey image, uint16 [H, W]; InputError for anything else."""
    with reading(path, "16-bit image"), Image.open(path) as image:
        require_plausible_size(path, image.height, image.width)
        # Pillow before 11.3 calls 16-bit PNGs "I" (32-bit) where later ones say "I;16".
        if image.mode not in ("I", "I;16", "I;16B"):
            raise InputError(str(path), "a 16-bit grey image", f"an image of mode {image.mode}")
        values = np.asarray(image)
        if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
            raise InputError(str(path), "a 16-bit grey image", "values beyond 16 bits")
        return values.astype(np.uint16)


def write_rgb(path: PathLike, rgb: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] as PNG, whole or not at all; OutputError where it cannot be written."""
    _write_png(path, rgb)


def write_mask(path: PathLike, mask: NDArray[np.bool_]) -> None:
    """Write bool [H, W] as an 8-bit PNG of 0 and 255; OutputError where it cannot be written."""
    _write_png(path, np.where(mask, np.uint8(255), np.uint8(0)))


def _write_png(path: PathLike, pixels: NDArray[np.uint8]) -> None:
    if Path(path).suffix.lower() != ".png":
        raise InputError(str(path), "a name that ends in .png", f"{Path(path).suffix!r}")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())
