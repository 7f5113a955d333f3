"""What goes wrong with a part: dents, bumps, wrong colour, rough surface, holes and broken edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import distance_transform_edt, label

from cfr_fast.data.synthetic.canvas import Canvas, Grid, smoothstep
from cfr_fast.data.synthetic.materials import Look, linear, mix

FLOOR = 6.5
"""Hollows keep this height (mm): clear of the distance by which preparation removes the table."""

STAINS = tuple(map(linear, ("2a1a12", "7d8b86", "5f7f3a", "e9e4d6", "2f4f8f", "8a4a1c", "a51f2d")))


@dataclass(frozen=True)
class Site:
    """Where a defect sits.

    Args:
        reach: float32 [N, N], 0 at its centre, 1 at its uneven outline.
        radius: mean radius in mm.
    """

    reach: Grid
    radius: float


def dent(canvas: Canvas, height: Grid, look: Look, rng: np.random.Generator) -> tuple[Grid, Look]:
    """Pressed in, 2 to 4.5 mm."""
    site = _inside(canvas, height, rng, rng.uniform(6.0, 10.5))
    depth = rng.uniform(2.0, 4.5) * np.clip(1 - site.reach**2, 0, 1) ** 1.5
    return np.maximum(height - depth, np.minimum(height, FLOOR)).astype(np.float32), look


def bump(canvas: Canvas, height: Grid, look: Look, rng: np.random.Generator) -> tuple[Grid, Look]:
    """Raised, 1.8 to 4.2 mm, in the part's own colour."""
    site = _inside(canvas, height, rng, rng.uniform(5.5, 9.5))
    rise = rng.uniform(1.8, 4.2) * np.clip(1 - site.reach**2, 0, 1) ** 1.5
    return (height + rise * (height > FLOOR)).astype(np.float32), look


def colour(canvas: Canvas, height: Grid, look: Look, rng: np.random.Generator) -> tuple[Grid, Look]:
    """A stain of a foreign colour that differs plainly from what it covers; the shape stays."""
    site = _inside(canvas, height, rng, rng.uniform(5.0, 9.0))
    below = look.albedo[site.reach < 0.6].reshape(-1, 3)
    local = below.mean(axis=0) if len(below) else look.albedo.mean(axis=(0, 1))
    contrast = [float(np.abs(np.sqrt(stain) - np.sqrt(local)).max()) for stain in STAINS]
    order = [k for k in rng.permutation(len(STAINS)).tolist() if contrast[k] > 0.28]
    stain = STAINS[order[0] if order else int(np.argmax(contrast))]
    cover = np.float32(rng.uniform(0.8, 1.0)) * smoothstep(1.0, 0.8, site.reach)
    albedo = mix(look.albedo, stain, cover * (height > 0))
    return height, replace(look, albedo=albedo)


def rough(canvas: Canvas, height: Grid, look: Look, rng: np.random.Generator) -> tuple[Grid, Look]:
    """A smooth skin gone: uneven at the scale of a millimetre or two, and matt."""
    site = _inside(canvas, height, rng, rng.uniform(6.5, 11.0))
    cover = smoothstep(1.0, 0.8, site.reach) * (height > FLOOR)
    relief = canvas.noise(rng, rng.uniform(1.7, 2.3)) * rng.uniform(0.8, 1.3)
    rise = np.clip(relief, -1.8, 1.8) * cover
    gloss = look.gloss * (1 - 0.7 * cover)
    return (height + rise).astype(np.float32), replace(look, gloss=gloss.astype(np.float32))


def hole(canvas: Canvas, height: Grid, look: Look, rng: np.random.Generator) -> tuple[Grid, Look]:
    """A pit with steep walls, or (one time in three) an edge broken off down to the table."""
    if rng.random() < 1 / 3:
        site = _at_edge(canvas, height, rng, rng.uniform(7.0, 11.0))
        left = smoothstep(0.88, 1.0, site.reach)
        pieces, count = label(height * left > 0.5 * FLOOR)
        if count > 1:
            left *= pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax())
        filling = mix(look.albedo, look.filling * np.float32(0.85), smoothstep(1.12, 1.02, site.reach))
        return (height * left).astype(np.float32), replace(look, albedo=filling)
    site = _inside(canvas, height, rng, rng.uniform(3.8, 6.5))
    ground = np.maximum(FLOOR + 0.3 * canvas.noise(rng, 2.0), height - rng.uniform(5.0, 9.0))
    pit = smoothstep(1.0, 0.75, site.reach) * (height > FLOOR)
    sunk = height - np.clip(height - ground, 0, None) * pit
    albedo = mix(look.albedo, look.filling * np.float32(0.6), smoothstep(1.0, 0.85, site.reach))
    gloss = look.gloss * (1 - pit)
    return sunk.astype(np.float32), replace(look, albedo=albedo, gloss=gloss.astype(np.float32))


Defect = Callable[[Canvas, Grid, Look, np.random.Generator], tuple[Grid, Look]]
DEFECTS: dict[str, Defect] = {"bump": bump, "colour": colour, "dent": dent, "hole": hole, "rough": rough}


def _inside(canvas: Canvas, height: Grid, rng: np.random.Generator, radius: float) -> Site:
    """A site well inside the outline; shrinks to what a narrow part has room for, down to 60 %."""
    rim = _rim_distance(canvas, height)
    wanted = min(0.8 * radius, 0.8 * float(rim.max()))
    x, y = _pick(canvas, rim, wanted, math.inf, rng)
    room = max(_at(canvas, rim, x, y), 0.6 * radius)
    return _site(canvas, x, y, min(radius, 1.1 * room), rng)


def _at_edge(canvas: Canvas, height: Grid, rng: np.random.Generator, radius: float) -> Site:
    rim = _rim_distance(canvas, height)
    x, y = _pick(canvas, rim, 0.3 * radius, 0.5 * radius, rng)
    return _site(canvas, x, y, radius, rng)


def _rim_distance(canvas: Canvas, height: Grid) -> Grid:
    """Distance from every point of the part to its outline, mm."""
    return np.asarray(distance_transform_edt(height > 0.5 * FLOOR) * canvas.spacing, dtype=np.float32)


def _pick(
    canvas: Canvas, rim: Grid, low: float, high: float, rng: np.random.Generator
) -> tuple[float, float]:
    """A random point whose rim distance lies between `low` and `high` mm (nearly the same on any grid)."""
    best, best_miss = (0.0, 0.0), math.inf
    for x, y in rng.uniform(-50, 50, (600, 2)).tolist():
        distance = _at(canvas, rim, x, y)
        miss = max(low - distance, distance - high, 0.0) if distance > 0 else math.inf
        if miss < best_miss:
            best, best_miss = (x, y), miss
            if miss == 0:
                break
    return best


def _at(canvas: Canvas, image: Grid, x: float, y: float) -> float:
    row, col = (round((value + canvas.half) / canvas.spacing) for value in (y, x))
    inside = 0 <= row < canvas.count and 0 <= col < canvas.count
    return float(image[row, col]) if inside else 0.0


def _site(canvas: Canvas, x: float, y: float, radius: float, rng: np.random.Generator) -> Site:
    """An uneven ellipse around (x, y)."""
    dx, dy = canvas.axis[None, :] - np.float32(x), canvas.axis[:, None] - np.float32(y)
    turn, stretch = rng.uniform(0, math.pi), rng.uniform(1.0, 1.35)
    a = (math.cos(turn) * dx + math.sin(turn) * dy) / stretch
    b = (math.cos(turn) * dy - math.sin(turn) * dx) * stretch
    theta = np.arctan2(b, a)
    outline = np.ones_like(theta)
    for k in (2, 3, 5):
        outline = outline + rng.uniform(0.02, 0.09) * np.cos(k * theta + rng.uniform(0, 2 * math.pi))
    return Site((np.hypot(a, b) / (radius * outline)).astype(np.float32), radius)
