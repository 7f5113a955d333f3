"""The ground that parts are modelled on: a metric grid on the table, noise on it, soft steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.floating[Any]]
"""Floating-point values on a canvas or an image; float32 wherever it matters."""

TABLE_HALF, PART_HALF = 84.0, 55.0
"""Half the sides (mm) of the table and of its middle, on which parts lie: more than any pose needs."""


@dataclass(frozen=True)
class Place:
    """Where a part lies on the table: turned by `angle` (radians), moved by `shift` (mm), scaled."""

    angle: float
    shift: tuple[float, float]
    scale: float


class Canvas:
    """A square grid on the table, centred below the camera; lengths in millimetres.

    Attributes:
        half: half its side. Rows run with y (down in the photo), columns with x (right).
        axis: float32 [N], x of the columns and y of the rows.
        u, v: float32 [N, N], the same points in the part's own coordinates, v up.
        spacing: distance of neighbouring grid points on the table.
    """

    def __init__(self, count: int, spacing: float, place: Place) -> None:
        self.count = count
        self.spacing = spacing
        self.half = spacing * (count - 1) / 2
        self.place = place
        self.axis: Grid = np.linspace(-self.half, self.half, count, dtype=np.float32)
        x = (self.axis - np.float32(place.shift[0]))[None, :] / np.float32(place.scale)
        y = (np.float32(place.shift[1]) - self.axis)[:, None] / np.float32(place.scale)
        cos, sin = np.float32(math.cos(place.angle)), np.float32(math.sin(place.angle))
        self.u: Grid = cos * x + sin * y
        self.v: Grid = cos * y - sin * x

    def window(self, u: float, v: float, radius: float) -> tuple[slice, slice]:
        """The grid points around (u, v) of the part, at least `radius` to each side."""
        cos, sin = math.cos(self.place.angle), math.sin(self.place.angle)
        x = self.place.scale * (cos * u - sin * v) + self.place.shift[0]
        y = -self.place.scale * (sin * u + cos * v) + self.place.shift[1]
        reach = radius * self.place.scale + self.spacing
        first_row, last_row = ((y + side * reach + self.half) / self.spacing for side in (-1, 1))
        first_col, last_col = ((x + side * reach + self.half) / self.spacing for side in (-1, 1))
        return (
            slice(max(0, math.floor(first_row)), max(0, math.ceil(last_row) + 1)),
            slice(max(0, math.floor(first_col)), max(0, math.ceil(last_col) + 1)),
        )

    def noise(self, rng: np.random.Generator, cell: float) -> Grid:
        """Smooth noise with features about `cell` mm wide, standard deviation about 0.7, [N, N].

        The random lattice does not depend on the grid, so another image size shows the same surface;
        features finer than the grid fade, as they would in a coarser camera.
        """
        lattice_count = math.ceil(2 * TABLE_HALF / cell) + 4
        lattice = rng.standard_normal((lattice_count, lattice_count), dtype=np.float32)
        position = (self.axis + np.float32(TABLE_HALF)) / np.float32(cell)
        start = np.floor(position).astype(np.int64)
        taps = _cubic_taps((position - start).astype(np.float32))
        rows = sum(tap[:, None] * lattice[start + k] for k, tap in enumerate(taps))
        assert isinstance(rows, np.ndarray)
        rows = np.ascontiguousarray(rows.T)
        out = np.zeros((self.count, self.count), dtype=np.float32)
        for k, tap in enumerate(taps):
            out += tap[:, None] * rows[start + k]
        return np.ascontiguousarray(out.T) * np.float32(1.4 * min(1.0, cell / self.spacing))


def smoothstep(low: float, high: float, value: Grid) -> Grid:
    """0 below `low`, 1 above `high` (or the reverse where high < low), smooth in between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _cubic_taps(t: Grid) -> tuple[Grid, Grid, Grid, Grid]:
    """Uniform cubic B-spline weights of the four lattice points around fraction t."""
    s = 1 - t
    return s**3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * s**3 - 6 * s**2 + 4) / 6, t**3 / 6
