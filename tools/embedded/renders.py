"""Top views of random parts under two lamps, and their normal maps; with the shapes of the procedural set."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cfr_fast.data.synthetic import categories
from cfr_fast.data.synthetic.canvas import PART_HALF, Canvas, Grid, Place, smoothstep
from cfr_fast.data.synthetic.catalogue import RECIPES
from cfr_fast.data.synthetic.defects import DEFECTS
from cfr_fast.data.synthetic.materials import Look, mix
from cfr_fast.data.synthetic.sensor import develop
from cfr_fast.data.synthetic.shading import Light, shade_part, shade_table
from cfr_fast.data.synthetic.shapes import Shape, slab
from tools.embedded.textures import fractal, fractal_picture, leaves

TABLE = 5.0  # mm; what lies lower has no points once a sample is prepared


def render(rng: np.random.Generator, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A random part, seen from above.

    Shapes are those of the procedural set or free forms; materials theirs with other colours, or random
    pictures; some parts have a defect. The two photos differ in lamp, table and noise, not in the part.

    Args:
        rng: all randomness.
        size: S.

    Returns:
        Two photos and two normal maps, float32 [2, S, S, 3] each, in 0 … 1.
    """
    half = PART_HALF * math.exp(rng.uniform(math.log(0.3), 0.0))
    reach = max(4.0, 40 - half)
    x, y = rng.uniform(-reach, reach, 2).tolist()
    place = Place(rng.uniform(-math.pi, math.pi), (x, y), rng.uniform(0.85, 1.15))
    canvas = Canvas(size, 2 * half / (size - 1), place)
    whole = half > 0.75 * PART_HALF
    known = rng.random() < 0.6
    if known:
        recipe = RECIPES[str(rng.choice(categories()))]
        shape = recipe.shape(canvas, rng)
        look = recipe.look(canvas, shape, rng) if rng.random() < 0.6 else _free_look(canvas, shape, rng)
    else:
        shape = _free_form(canvas, rng)
        look = _free_look(canvas, shape, rng)
    height = shape.height.astype(np.float32)
    if known and whole and rng.random() < 0.4:  # defects look for a place inside the part
        height, look = DEFECTS[str(rng.choice(sorted(DEFECTS)))](canvas, height, look, rng)
    look = _recoloured(look, rng)
    photos = [_photo(canvas, height, look, rng) for _ in range(2)]
    normals = [normal_picture(height, canvas.spacing, rng) for _ in range(2)]
    return np.stack(photos), np.stack(normals)


def normal_picture(height: Grid, spacing: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """The normal map of a height field as a sensor and plane fits would give it, in 0 … 1: [S, S, 3].

    Axes are those of `cfr_fast.extractors.normals.normal_map`: x right, y up, z to the camera; mostly the
    table is missing, and its normals face the camera.
    """
    size = height.shape[0]
    noise = rng.standard_normal(height.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.4) * spacing)
    sigma = rng.uniform(0.8, 2.2) * size / 256
    smooth = gaussian_filter(height + noise, sigma)
    slope_y, slope_x = np.gradient(smooth, np.float32(spacing))
    normal = np.stack([-slope_x, slope_y, np.ones_like(slope_x)], axis=2)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    if rng.random() < 0.7:
        share = gaussian_filter((height > TABLE).astype(np.float32), sigma)
        normal = normal * share[..., None] + np.array([0, 0, 1], np.float32) * (1 - share[..., None])
        normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    return np.asarray((normal + 1) / 2, dtype=np.float32)


def random_heights(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """A random surface with neither part nor table: fractal, dead leaves or both; mm on a 110 mm square."""
    field = np.zeros((size, size), np.float32)
    if rng.random() < 0.7:
        field += rng.uniform(0.3, 3) * fractal(rng, size, rng.uniform(1.3, 2.4))
    if rng.random() < 0.7:
        field += rng.uniform(2, 15) * leaves(rng, size, channels=1)[..., 0]
    return field + 10


def _photo(canvas: Canvas, height: Grid, look: Look, rng: np.random.Generator) -> NDArray[np.float32]:
    light = Light(
        azimuth=rng.uniform(-math.pi, math.pi),
        elevation=rng.uniform(0.45, 1.35),
        brightness=rng.uniform(0.75, 1.15),
        tint=rng.uniform(0.88, 1.12, 3).astype(np.float32),
    )
    belt = rng.uniform(0.05, 0.7) * rng.uniform(0.7, 1.0, 3)
    table = shade_table(canvas, height, belt.astype(np.float32), light, rng)
    colour = mix(table, shade_part(canvas, height, look, light), np.clip(height / 4, 0, 1))
    noise = rng.standard_normal(colour.shape, dtype=np.float32) * np.float32(rng.uniform(0, 3))
    return np.asarray(np.clip(develop(colour) + noise, 0, 255) / 255, dtype=np.float32)


def _free_form(canvas: Canvas, rng: np.random.Generator) -> Shape:
    """A slab of random outline with waves, knobs, grooves or leaves on it."""
    r, theta = np.hypot(canvas.u, canvas.v), np.arctan2(canvas.v, canvas.u)
    outline = rng.uniform(24, 44) + rng.uniform(0, 2) * canvas.noise(rng, rng.uniform(6, 20))
    for k in range(2, 7):
        outline = outline + rng.uniform(0, 8 / k) * np.cos(k * theta + rng.uniform(0, 2 * math.pi))
    inside = outline - r
    if rng.random() < 0.4:  # a ring
        inside = np.minimum(inside, r - rng.uniform(5, 14))
    height = slab(canvas, inside, rng.uniform(8, 22), rng.uniform(0.5, 8))
    on = (height > 0).astype(np.float32)
    for _ in range(int(rng.integers(0, 4))):
        height = height + on * rng.uniform(0.05, 1.0) * canvas.noise(rng, math.exp(rng.uniform(0, 3)))
    if rng.random() < 0.5:
        turn, pitch = rng.uniform(0, math.pi), rng.uniform(3, 14)
        along = (math.cos(turn) * canvas.u + math.sin(turn) * canvas.v) * (2 * math.pi / pitch)
        height = height + on * rng.uniform(0.2, 1.5) * smoothstep(-0.3, 0.5, np.cos(along))
    if rng.random() < 0.5:
        relief = leaves(rng, canvas.count, channels=1)[..., 0]
        height = height + on * rng.uniform(0.5, 5) * relief
    return Shape(np.clip(height, 0, None).astype(np.float32), {"inside": inside})


def _free_look(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> Look:
    """A random picture as material, darker and more saturated than a photo of it."""
    kind = rng.random()
    if kind < 0.4:
        picture = leaves(rng, canvas.count)
    elif kind < 0.7:
        picture = fractal_picture(rng, canvas.count)
    else:
        picture = np.broadcast_to(rng.uniform(0.1, 0.9, 3), (canvas.count, canvas.count, 3))
        grain = 1 + rng.uniform(0, 0.2) * canvas.noise(rng, math.exp(rng.uniform(0, 2)))
        picture = np.clip(picture * grain[..., None], 0, 1)
    albedo = (picture**2.2).astype(np.float32)
    gloss = np.full((canvas.count, canvas.count), rng.uniform(0, 0.5), np.float32)
    filling = rng.uniform(0.05, 0.9, 3).astype(np.float32)
    return Look(albedo, gloss, rng.uniform(8, 90), rng.uniform(0, 0.7) ** 2, filling)


def _recoloured(look: Look, rng: np.random.Generator) -> Look:
    """Other colours on the same pattern: channels swapped and scaled, for half of the parts."""
    if rng.random() < 0.5:
        return look
    order, gain = rng.permutation(3), rng.uniform(0.5, 1.3, 3).astype(np.float32)
    albedo = np.clip(look.albedo[..., order] * gain, 0, 1).astype(np.float32)
    return Look(albedo, look.gloss, look.sharpness, look.glow, look.filling)
