"""Height fields of parts: their common type and tools; shape never knows colour.

All lengths are millimetres. Every part stands at least 6 mm high at its outline, so that removing the
table by its distance leaves the part whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.synthetic.canvas import Canvas, Grid


@dataclass(frozen=True)
class Shape:
    """A part's surface.

    Args:
        height: float32 [N, N], mm above the table, 0 beside the part.
        maps: float32 [N, N] each: coverages from 0 to 1, or coordinates, that a material may colour by.
        owner: int32 [N, N], number of the bead or sprinkle that covers a point, -1 elsewhere.
        owners: how many of them there are.
    """

    height: Grid
    maps: dict[str, Grid] = field(default_factory=dict)
    owner: NDArray[np.int32] | None = None
    owners: int = 0


def slab(canvas: Canvas, inside: Grid, top: Grid | float, fillet: float) -> Grid:
    """A slab with a rounded upper edge; `inside` is the distance to the outline, positive inside."""
    depth = np.clip(fillet - inside, 0, fillet)
    rounding = fillet - np.sqrt(np.clip(fillet * fillet - depth * depth, 0, None))
    return np.asarray((top - rounding) * np.clip(inside / canvas.spacing + 0.5, 0, 1))


def scatter(
    rng: np.random.Generator, count: int, gap: float, allowed: Callable[[float, float], bool]
) -> list[tuple[float, float]]:
    """Up to `count` random points (u, v), at least `gap` mm apart, where `allowed` says so."""
    found: list[tuple[float, float]] = []
    for u, v in rng.uniform(-42, 42, (40 * count, 2)).tolist():
        if allowed(u, v) and all((u - a) ** 2 + (v - b) ** 2 >= gap * gap for a, b in found):
            found.append((u, v))
            if len(found) == count:
                break
    return found
