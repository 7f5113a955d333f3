"""A pinhole camera over the table, and what each of its rays meets on a height field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.synthetic.canvas import Canvas, Grid

FOCAL = 3.2
"""Focal length as a multiple of the image side."""

STEPS = 16
"""Even steps from the top to the table; steep walls are then found by bisection."""

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Pose:
    """How the camera looks at the middle of the table, slightly tilted.

    Args:
        size: image side in pixels; the principal point is the image's centre.
        distance: along the optical axis to the table, mm.
        tilt: lean about the image's horizontal and vertical axes, radians.
    """

    size: int
    distance: float
    tilt: tuple[float, float]

    @staticmethod
    def draw(size: int, rng: np.random.Generator) -> Pose:
        """About 0.45 m away, up to some 4° off the vertical."""
        lean = rng.uniform(-0.05, 0.05, 2).tolist()
        return Pose(size, float(rng.uniform(435, 465)), (lean[0], lean[1]))

    def rays(self) -> NDArray[np.float32]:
        """Camera-frame directions with z = 1, [S, S, 3]: x right, y down."""
        step = (np.arange(self.size, dtype=np.float32) + 0.5 - self.size / 2) / np.float32(FOCAL * self.size)
        x, y = np.broadcast_arrays(step[None, :], step[:, None])
        return np.stack([x, y, np.ones_like(x)], axis=2)

    def to_table(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rotation (camera → table: x right, y down, z up) and the camera's position, mm."""
        (sin_a, sin_b), (cos_a, cos_b) = np.sin(self.tilt), np.cos(self.tilt)
        about_x = np.array([[1, 0, 0], [0, cos_a, -sin_a], [0, sin_a, cos_a]])
        about_y = np.array([[cos_b, 0, sin_b], [0, 1, 0], [-sin_b, 0, cos_b]])
        rotation = np.diag([1.0, 1.0, -1.0]) @ about_x @ about_y
        return rotation, -self.distance * rotation[:, 2]

    def window(self, canvas: Canvas, height: Grid) -> Window:
        """The pixels that can see the part, with a small margin."""
        rotation, origin = self.to_table()
        spans = []
        for axis in (1, 0):
            present = np.flatnonzero((height > 0).any(axis=1 - axis))
            spans.append(canvas.axis[present[[0, -1]]].tolist())
        corners = [(x, y, z) for x in spans[0] for y in spans[1] for z in (0.0, float(height.max()))]
        seen = (np.array(corners) - origin) @ rotation
        pixel = seen[:, :2] / seen[:, 2:] * FOCAL * self.size + self.size / 2
        margin = 3
        low = np.clip(np.floor(pixel.min(axis=0)) - margin, 0, self.size).astype(int).tolist()
        high = np.clip(np.ceil(pixel.max(axis=0)) + margin, 0, self.size).astype(int).tolist()
        return slice(low[1], high[1]), slice(low[0], high[0])


@dataclass(frozen=True)
class View:
    """What the pixels of a window see.

    Args:
        depth: float32 [h, w], mm along the optical axis.
        height: float32 [h, w], mm above the table.
        row, col: float32 [h, w], the surface point's position on the canvas.
    """

    depth: Grid
    height: Grid
    row: Grid
    col: Grid


def bilinear(image: NDArray[np.float32], row: Grid, col: Grid) -> NDArray[np.float32]:
    """Values of `image` [N, N] or [N, N, C] between its points; row and col in 0 to N − 1."""
    count = image.shape[0]
    first_row = np.minimum(row.astype(np.int64), count - 2)
    first_col = np.minimum(col.astype(np.int64), count - 2)
    down, right = (row - first_row).astype(np.float32), (col - first_col).astype(np.float32)
    if image.ndim == 3:
        down, right = down[..., None], right[..., None]
    flat, index = image.reshape(count * count, *image.shape[2:]), first_row * count + first_col
    upper = flat.take(index, axis=0) * (1 - right) + flat.take(index + 1, axis=0) * right
    index += count
    lower = flat.take(index, axis=0) * (1 - right) + flat.take(index + 1, axis=0) * right
    return np.asarray(upper + (lower - upper) * down, dtype=np.float32)


def cast(pose: Pose, canvas: Canvas, height: Grid | None, top: float, window: Window) -> View:
    """First hit of every ray with the height field: even steps down, then bisection.

    Args:
        pose: of the camera.
        canvas: where `height` lies; its positions are reported.
        height: float32 [N, N], mm; None for the bare table.
        top: where the rays start their steps, mm; at or above every height.
        window: pixels to look at.
    """
    rotation, origin = pose.to_table()
    direction = pose.rays()[window] @ rotation.T.astype(np.float32)
    down = -1 / direction[..., 2]
    upper, drop = np.float32(origin[2] - top) * down, np.float32(top) * down
    limit, scale = np.float32(canvas.count - 1), np.float32(1 / canvas.spacing)
    start, stride = [], []
    for k in (1, 0):
        start.append((np.float32(origin[k] + canvas.half) + direction[..., k] * upper) * scale)
        stride.append(direction[..., k] * drop * scale)

    def place(share: Grid | float) -> tuple[Grid, Grid]:
        row, col = (np.clip(a + b * share, 0, limit) for a, b in zip(start, stride, strict=True))
        return row, col

    if height is None:
        return View(np.asarray(upper), np.zeros_like(upper), *place(0.0))
    flat = height.ravel()
    low, high = np.zeros_like(upper), np.ones_like(upper)
    falling = np.ones(upper.shape, dtype=bool)
    for k in range(1, STEPS):
        share = k / STEPS
        row, col = place(share)
        seen = flat.take((row + 0.5).astype(np.int64) * canvas.count + (col + 0.5).astype(np.int64))
        hit = falling & (seen >= top * (1 - share))
        high[hit] = share
        falling &= ~hit
        low[falling] = share
    for _ in range(6):
        middle = (low + high) / 2
        below = bilinear(height, *place(middle)) >= top * (1 - middle)
        high, low = np.where(below, middle, high), np.where(below, low, middle)
    middle = (low + high) / 2
    return View(np.asarray(upper + drop * middle), np.asarray(top * (1 - middle)), *place(middle))
