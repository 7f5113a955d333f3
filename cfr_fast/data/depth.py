"""Depth images: metres along the optical axis, and the points behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.arrays import read_array
from cfr_fast.data.camera import Camera
from cfr_fast.data.files import PathLike
from cfr_fast.data.images import read_uint16
from cfr_fast.data.units import Unit, metres_per_unit, require_near
from cfr_fast.errors import InputError


def read_depth(path: PathLike, scale: float = 0.001, unit: Unit = "m") -> NDArray[np.float32]:
    """Read a depth image: 16-bit .png, or .tiff, .tif, .npy of integers or floats.

    Args:
        path: the file.
        scale: metres per step of integer depth.
        unit: of floating-point depth.

    Returns:
        float32 [H, W], metres, 0 where nothing was measured (0, negative, NaN or infinite in the file).

    Raises:
        InputError: missing, corrupt or truncated file, 8-bit or coloured pixels, depths beyond 20 m.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".png":
        raw: NDArray[np.generic] = read_uint16(path)
    elif suffix in (".tiff", ".tif", ".npy"):
        raw = read_array(path, "depth image")
    else:
        raise InputError(str(path), "a depth image (.png, .tiff, .tif or .npy)", f"{suffix or 'no suffix'}")
    if raw.ndim == 3 and raw.shape[2] == 1:
        raw = raw[..., 0]
    if raw.ndim != 2 or raw.dtype.kind not in "iuf" or raw.dtype.itemsize < 2:
        raise InputError(
            str(path), "[H, W] depths of 16 bits or more", f"{raw.dtype} of shape {list(raw.shape)}"
        )
    whole = raw.dtype.kind in "iu"
    with np.errstate(invalid="ignore"):  # signalling NaN are as good as quiet ones here
        metres = raw.astype(np.float64) * (scale if whole else metres_per_unit(unit))
    metres[~(np.isfinite(metres) & (metres > 0))] = 0.0
    hint = "check depth_scale" if whole else "looks like millimetres: pass unit='mm'"
    require_near(path, metres[metres > 0], hint)
    return metres.astype(np.float32)


def depth_to_xyz(depth: NDArray[np.floating], camera: Camera) -> NDArray[np.float32]:
    """Points behind a depth image: depth · K⁻¹ · [u, v, 1].

    Args:
        depth: [H, W], metres along the optical axis; 0, NaN and infinity mean "no measurement".
        camera: its intrinsics; a size that it states must be the image's.

    Returns:
        float32 [H, W, 3], metres, camera coordinates (x right, y down, z forward), zeros where missing.

    Raises:
        InputError: not [H, W], or another size than the camera's.
    """
    if depth.ndim != 2:
        raise InputError("depth", "an array of shape [H, W]", f"shape {list(depth.shape)}")
    if camera.height is not None and depth.shape != (camera.height, camera.width):
        raise InputError(
            "depth",
            f"the camera's size, {camera.height}×{camera.width}",
            f"{depth.shape[0]}×{depth.shape[1]}",
        )
    z = np.where(np.isfinite(depth) & (depth > 0), depth, 0.0).astype(np.float64)
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]]
    xyz = np.stack(((u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z), axis=2)
    return xyz.astype(np.float32)
