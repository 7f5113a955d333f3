"""The square view of a sample that extractors work on, and the way back to the input's pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from cfr_fast.data.sample import Sample
from cfr_fast.errors import InputError


@dataclass(frozen=True, eq=False)
class Frame:
    """A sample cut (optionally) to its object and padded to a square.

    Args:
        rgb: uint8 [L, L, 3]; padding repeats the edge.
        xyz: float32 [L, L, 3], metres; padding and missing points are zeros.
        top, left: where the sample's pixel (0, 0) would lie in the frame (negative when cut off).
        source_shape: height and width of the sample.
    """

    rgb: NDArray[np.uint8]
    xyz: NDArray[np.float32]
    top: int
    left: int
    source_shape: tuple[int, int]

    @property
    def side(self) -> int:
        """L, in pixels."""
        return int(self.rgb.shape[0])

    def grid_xyz(self, size: int) -> NDArray[np.float32]:
        """The points on a size×size grid, nearest neighbour: float32 [size, size, 3].

        Row i takes the frame's row ⌊i·L/size⌋, as ``torch.nn.functional.interpolate(mode="nearest")`` does.
        """
        index = _nearest_index(self.side, size)
        return self.xyz[index[:, None], index]

    def grid_rgb(self, size: int) -> NDArray[np.uint8]:
        """The photo on a size×size grid, to be looked at: bicubic, uint8 [size, size, 3]."""
        return np.asarray(Image.fromarray(self.rgb).resize((size, size), Image.Resampling.BICUBIC))

    def grid_mask(self, mask: ArrayLike, size: int) -> NDArray[np.bool_]:
        """A mask at the sample's resolution on the size×size grid: [H, W] → bool [size, size].

        As the protocol treats ground truth: padded by repeating the edge, then nearest neighbour.

        Raises:
            InputError: `mask` has not the sample's height and width.
        """
        array = np.asarray(mask)
        if array.shape != self.source_shape:
            raise InputError("mask", f"shape {list(self.source_shape)}", f"shape {list(array.shape)}")
        index = _nearest_index(self.side, size)
        rows = np.clip(index - self.top, 0, self.source_shape[0] - 1)
        cols = np.clip(index - self.left, 0, self.source_shape[1] - 1)
        return np.asarray(array[rows[:, None], cols] != 0)

    def grid_map(self, map: ArrayLike, size: int) -> NDArray[np.float32]:
        """A map at the sample's resolution on the size×size grid: [H, W] → float32 [size, size].

        Nearest neighbour; padding is zero.

        Raises:
            InputError: `map` has not the sample's height and width.
        """
        array = np.asarray(map, dtype=np.float32)
        if array.shape != self.source_shape:
            raise InputError("map", f"shape {list(self.source_shape)}", f"shape {list(array.shape)}")
        index = _nearest_index(self.side, size)
        rows, cols = index - self.top, index - self.left
        height, width = self.source_shape
        inside = ((rows >= 0) & (rows < height))[:, None] & ((cols >= 0) & (cols < width))
        taken = array[np.clip(rows, 0, height - 1)[:, None], np.clip(cols, 0, width - 1)]
        return np.where(inside, taken, np.float32(0))

    def to_source(self, map: ArrayLike) -> NDArray[np.float32]:
        """A map on an s×s grid over the frame, back at the sample's resolution: [s, s] → float32 [H, W].

        Bilinear between pixel centres (``align_corners=False``); pixels that a crop cut off are zero.

        Raises:
            InputError: `map` is not a square array.
        """
        values = np.asarray(map, dtype=np.float32)
        if values.ndim != 2 or values.shape[0] != values.shape[1] or values.size == 0:
            raise InputError("map", "a square array [s, s]", f"shape {list(values.shape)}")
        height, width = self.source_shape
        rows = slice(max(0, -self.top), min(height, self.side - self.top))
        cols = slice(max(0, -self.left), min(width, self.side - self.left))
        scale = values.shape[0] / self.side
        source = np.zeros(self.source_shape, np.float32)
        half = _lerp(values, (np.arange(rows.start, rows.stop) + self.top + 0.5) * scale - 0.5)
        source[rows, cols] = _lerp(
            half.T, (np.arange(cols.start, cols.stop) + self.left + 0.5) * scale - 0.5
        ).T
        return source


def frame_of(sample: Sample, crop: bool = False, multiple: int = 1, margin: float = 0.1) -> Frame:
    """The square frame of a sample, at its native resolution.

    Args:
        sample: its background already removed where `crop` is to find the object.
        crop: False shows the whole sample, centred in the square. True shows the valid points only: the
            square around their bounding box, shifted to lie inside the sample as far as it fits, so that
            real pixels come before padding; never larger than the uncropped frame.
        multiple: the side is rounded up to a multiple of this (100 in MVTec 3D-AD's usual preparation).
        margin: room around the object on each side of a crop, as a share of its larger extent.

    Raises:
        InputError: `multiple` below 1, or `margin` negative or not finite.
    """
    if multiple < 1:
        raise InputError("multiple", "a whole number of at least 1", str(multiple))
    if not (math.isfinite(margin) and margin >= 0):
        raise InputError("margin", "a share of at least 0", str(margin))
    height, width = sample.shape
    side = math.ceil(max(height, width) / multiple) * multiple
    top, left = (side - height) // 2, (side - width) // 2
    if crop:
        row_span, col_span = (np.flatnonzero(sample.valid.any(axis=axis)) for axis in (1, 0))
        extent = max(np.ptp(row_span), np.ptp(col_span)) + 1
        wanted = math.ceil((extent + 2 * math.ceil(margin * extent)) / multiple) * multiple
        if wanted < side:
            side = wanted
            top = _crop_offset(int(row_span[0]), int(row_span[-1]), height, side)
            left = _crop_offset(int(col_span[0]), int(col_span[-1]), width, side)
    rows = np.arange(side) - top
    cols = np.arange(side) - left
    inside = ((rows >= 0) & (rows < height))[:, None] & ((cols >= 0) & (cols < width))
    rows, cols = np.clip(rows, 0, height - 1), np.clip(cols, 0, width - 1)
    rgb = sample.rgb[rows[:, None], cols]
    xyz = np.where(inside[..., None], sample.xyz[rows[:, None], cols], np.float32(0))
    return Frame(rgb, xyz, top, left, sample.shape)


def _crop_offset(first: int, last: int, length: int, side: int) -> int:
    """Where pixel 0 of an axis lies in a crop of `side` pixels centred on first … last."""
    if side >= length:
        return (side - length) // 2
    start = (first + last + 1 - side) // 2
    return -min(max(start, 0), length - side)


def _nearest_index(length: int, size: int) -> NDArray[np.intp]:
    """Index rule of torch's "nearest", its float32 rounding included."""
    if size < 1:
        raise InputError("size", "at least 1 pixel", str(size))
    scale = np.float32(length) / np.float32(size)
    index = np.floor(np.arange(size, dtype=np.float32) * scale).astype(np.intp)
    return np.asarray(np.minimum(index, length - 1))


def _lerp(values: NDArray[np.float32], position: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows of `values` at fractional positions, clamped at both ends; a constant stays exactly constant."""
    position = np.clip(position, 0, values.shape[0] - 1)
    low = np.floor(position).astype(np.intp)
    high = np.minimum(low + 1, values.shape[0] - 1)
    weight = (position - low).astype(np.float32)[:, None]
    below = values[low]
    return np.asarray(below + weight * (values[high] - below))
