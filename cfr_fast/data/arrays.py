"""Plain number arrays from TIFF and NPY files, with sizes checked before memory is taken."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cfr_fast.data.files import PathLike, reading, require_plausible_size
from cfr_fast.errors import InputError

# tifffile logs what it finds amiss before it raises; without a handler Python would print that on top.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def read_array(path: PathLike, kind: str) -> NDArray[np.generic]:
    """Read the array of an .npy file or the first page of a .tiff or .tif file.

    Raises:
        InputError: missing, corrupt or truncated file, pickled objects, an absurd size.
    """
    with reading(path, kind):
        return _read_npy(path) if Path(path).suffix.lower() == ".npy" else _read_tiff(path)


def _read_npy(path: PathLike) -> NDArray[np.generic]:
    # A memory map is refused by the system where the header promises more than the file holds.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(str(path), "one array (.npy)", "an archive of arrays")
    _require_image_shape(path, array.shape)
    return np.array(array)


def _read_tiff(path: PathLike) -> NDArray[np.generic]:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        _require_image_shape(path, page.shape)
        # tifffile fills absent segments with zeros, which would pass for missing points.
        size = os.path.getsize(path)
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        whole = all(count > 0 and start + count <= size for start, count in segments)
        if not whole or len(segments) != math.prod(page.chunked):
            raise InputError(str(path), "all of its pixels", "a truncated file")
        return np.asarray(page.asarray())


def _require_image_shape(path: PathLike, shape: tuple[int, ...]) -> None:
    if not 2 <= len(shape) <= 3:
        raise InputError(str(path), "an array of 2 or 3 dimensions", f"shape {list(shape)}")
    require_plausible_size(path, *shape)
