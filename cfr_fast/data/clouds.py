"""Organized point clouds from files, in metres; unorganized ones through the camera."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cfr_fast.data.arrays import read_array
from cfr_fast.data.camera import Camera
from cfr_fast.data.files import PathLike, write_atomically
from cfr_fast.data.pcd import read_pcd
from cfr_fast.data.ply import read_ply
from cfr_fast.data.points import measured, not_a_number
from cfr_fast.data.units import Unit, metres_per_unit, require_near
from cfr_fast.errors import InputError


def read_xyz(
    path: PathLike, unit: Unit = "m", camera: Camera | None = None, shape: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Read a point cloud as an image of points: .tiff, .tif, .npy ([H, W, 3] inside), .ply or .pcd.

    A list of points without rows and columns is taken row by row when it has exactly `shape`'s number of
    points; otherwise it is projected through `camera`, and the nearest point of each pixel stays.

    Args:
        path: the file.
        unit: of the coordinates in the file; the camera's own unit is not consulted here.
        camera: intrinsics, for unorganized clouds.
        shape: height and width of the photo that belongs to it, for unorganized clouds.

    Returns:
        float32 [H, W, 3], metres, zeros where missing (any coordinate NaN in the file).

    Raises:
        InputError: missing, corrupt or truncated file; coordinates that are infinite or no numbers; an
            unorganized cloud without intrinsics; a median distance beyond 20 m (millimetres?).
    """
    factor = metres_per_unit(unit)
    raw = _read_points(path)
    if raw.ndim not in (2, 3) or raw.shape[-1] != 3 or raw.dtype.kind not in "iuf" or raw.dtype.itemsize < 2:
        raise InputError(
            str(path),
            "an organized cloud, [H, W, 3] numbers of 16 bits or more",
            f"{raw.dtype} of shape {list(raw.shape)}"
            + (" (a depth image? call it NAME_depth)" if raw.ndim == 2 else ""),
        )
    with np.errstate(invalid="ignore"):  # signalling NaN are as good as quiet ones here
        points = raw.astype(np.float64) * factor
    points[not_a_number(points)] = 0.0
    if not np.isfinite(points).all() or np.abs(points).max(initial=0.0) > np.finfo(np.float32).max:
        raise InputError(str(path), "finite coordinates (NaN or zeros where missing)", "infinity")
    distances = np.linalg.norm(points[measured(points)], axis=-1)
    require_near(path, distances, "looks like millimetres: pass unit='mm'" if unit == "m" else "wrong unit?")
    if points.ndim == 2:
        return _organize(path, points, camera, shape).astype(np.float32)
    return points.astype(np.float32)


def project_points(points: NDArray[np.floating], camera: Camera) -> NDArray[np.floating]:
    """Lay a list of points into the image of `camera`; of points in one pixel the nearest stays.

    Args:
        points: [N, 3], metres, camera coordinates; those behind the camera or outside the image drop out.
        camera: intrinsics with width and height.

    Returns:
        [H, W, 3] of the same dtype, zeros where no point falls.

    Raises:
        InputError: no image size, or no point falls into the image.
    """
    if camera.width is None or camera.height is None:
        raise InputError("camera", "width and height, to project points into the image", "neither")
    ahead = points[points[:, 2] > 0]
    with np.errstate(over="ignore"):  # what overflows lies outside the image
        columns = np.rint(camera.fx * ahead[:, 0] / ahead[:, 2] + camera.cx)
        rows = np.rint(camera.fy * ahead[:, 1] / ahead[:, 2] + camera.cy)
    inside = (columns >= 0) & (columns < camera.width) & (rows >= 0) & (rows < camera.height)
    if not inside.any():
        raise InputError("camera", "intrinsics that see the cloud", "none of its points inside the image")
    ahead = ahead[inside]
    pixels = rows[inside].astype(np.int64) * camera.width + columns[inside].astype(np.int64)
    order = np.lexsort((ahead[:, 2], pixels))
    pixels, first = np.unique(pixels[order], return_index=True)
    image = np.zeros((camera.height * camera.width, 3), dtype=points.dtype)
    image[pixels] = ahead[order[first]]
    return image.reshape(camera.height, camera.width, 3)


def write_xyz(path: PathLike, xyz: NDArray[np.float32]) -> None:
    """Write float32 [H, W, 3], metres, as the kind of TIFF that MVTec 3D-AD consists of.

    Raises:
        InputError: another shape or dtype, or a name that does not end in .tiff or .tif.
        OutputError: the place cannot be written; nothing half-written stays.
    """
    if Path(path).suffix.lower() not in (".tiff", ".tif"):
        raise InputError(str(path), "a name that ends in .tiff", f"{Path(path).suffix!r}")
    if xyz.ndim != 3 or xyz.shape[2] != 3 or xyz.dtype != np.float32:
        raise InputError(
            "xyz", "a float32 array of shape [H, W, 3]", f"{xyz.dtype} of shape {list(xyz.shape)}"
        )
    buffer = io.BytesIO()
    # Without tifffile's own name, version and description the bytes depend on the points alone.
    tifffile.imwrite(buffer, xyz, photometric="rgb", metadata=None, software=False)
    write_atomically(path, buffer.getvalue())


def _read_points(path: PathLike) -> NDArray[np.generic]:
    suffix = Path(path).suffix.lower()
    if suffix in (".tiff", ".tif", ".npy"):
        return read_array(path, "point cloud")
    if suffix == ".ply":
        return read_ply(path)
    if suffix == ".pcd":
        return read_pcd(path)
    raise InputError(str(path), "a cloud (.tiff, .tif, .npy, .ply or .pcd)", f"{suffix or 'no suffix'}")


def _organize(
    path: PathLike, points: NDArray[np.float64], camera: Camera | None, shape: tuple[int, int] | None
) -> NDArray[np.floating]:
    if shape is not None and shape[0] * shape[1] == len(points):
        return points.reshape(*shape, 3)
    if camera is None:
        raise InputError(
            str(path),
            "an organized cloud (with rows and columns), or a camera.json to project it with",
            f"an unorganized list of {len(points)} points",
        )
    if camera.width is None or camera.height is None:
        if shape is None:
            raise InputError("camera", "width and height, to project points into the image", "neither")
        camera = replace(camera, height=shape[0], width=shape[1])
    return project_points(points, camera)
