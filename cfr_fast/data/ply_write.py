"""Coloured, organized point clouds as PLY files, for programs that show them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.files import PathLike, write_atomically
from cfr_fast.data.points import measured, not_a_number
from cfr_fast.errors import InputError


def write_ply(
    path: PathLike,
    xyz: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    scalars: Mapping[str, NDArray[np.floating]] | None = None,
) -> None:
    """Write an organized cloud with colours and scalar fields: a range grid, binary little endian.

    The vertices are the measured points alone, in raster order; the element ``range_grid`` lists for each of
    the H·W pixels its vertex or none, and ``obj_info`` lines say how wide and high it is (Stanford's way). So
    `read_ply` gives an image of points back, and no program has to know what a missing point is. As vertices,
    missing points would stray: by their source code, CloudCompare moves NaN to the origin, MeshLab drops them
    with a warning and Open3D keeps them; zeros are points at the camera in all three, far from the part.
    CloudCompare and Open3D pass the grid over; MeshLab makes a surface of it.

    Args:
        path: of the file; written atomically.
        xyz: float [H, W, 3], written as float32; a pixel without a measurement is zeros or has a NaN.
        rgb: uint8 [H, W, 3].
        scalars: numbers of the pixels, [H, W] each, by name (letters, digits, underscores); written as
            float32 properties ``scalar_NAME``, which CloudCompare shows as scalar fields.

    Raises:
        InputError: another shape or dtype, no pixel, infinite coordinates, a name that PLY cannot hold.
        OutputError: the place cannot be written; nothing half-written stays.
    """
    scalars = scalars or {}
    _check(path, xyz, rgb, scalars)
    height, width = xyz.shape[:2]
    there = (measured(xyz) & ~not_a_number(xyz)).ravel()
    fields = [("xyz", "<f4", 3), ("rgb", "u1", 3), *((f"scalar_{name}", "<f4") for name in scalars)]
    vertices = np.zeros(int(there.sum()), fields)
    vertices["xyz"] = xyz.reshape(-1, 3)[there]
    vertices["rgb"] = rgb.reshape(-1, 3)[there]
    for name, values in scalars.items():
        vertices[f"scalar_{name}"] = values.ravel()[there]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"obj_info num_cols {width}",
        f"obj_info num_rows {height}",
        f"element vertex {len(vertices)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {color}" for color in ("red", "green", "blue")),
        *(f"property float scalar_{name}" for name in scalars),
        f"element range_grid {height * width}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    write_atomically(path, "\n".join(header).encode() + vertices.tobytes() + _grid(there))


def _grid(there: NDArray[np.bool_]) -> bytes:
    """For each pixel a list of one index or none: its length in a byte, then the index in four."""
    start = np.cumsum(np.where(there, 5, 1)) - np.where(there, 5, 1)
    grid = np.zeros(len(there) + 4 * int(there.sum()), np.uint8)
    index = np.arange(there.sum(), dtype="<i4").view(np.uint8).reshape(-1, 4)
    grid[start[there]] = 1
    grid[start[there, None] + np.arange(1, 5)] = index
    return grid.tobytes()


def _check(
    path: PathLike,
    xyz: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    scalars: Mapping[str, NDArray[np.floating]],
) -> None:
    grid = xyz.shape[:2]
    size = ", ".join(str(length) for length in grid)
    images: list[tuple[str, NDArray[Any], str, tuple[int, ...]]] = [
        ("xyz", xyz, "float", (*grid, 3)),
        ("rgb", rgb, "uint8", (*grid, 3)),
    ]
    images += [(f"scalar {name!r}", values, "float", grid) for name, values in scalars.items()]
    for name, array, kind, shape in images:
        fits = array.dtype.kind == "f" if kind == "float" else array.dtype == np.uint8
        if not fits or array.shape != shape or array.size == 0:
            wanted = "[H, W, 3]" if name == "xyz" else f"[{size}, 3]" if name == "rgb" else f"[{size}]"
            raise InputError(
                f"{name} for {path}",
                f"{kind} {wanted}, at least one pixel",
                f"{array.dtype} {list(array.shape)}",
            )
    if np.isinf(xyz).any():
        raise InputError(f"xyz for {path}", "finite coordinates (NaN or zeros where missing)", "infinity")
    for name in scalars:
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise InputError(f"scalars for {path}", "names of letters, digits and underscores", repr(name))
