"""Height fields of baked parts; lengths in millimetres."""

from __future__ import annotations

import math

import numpy as np

from cfr_fast.data.synthetic.canvas import Canvas, smoothstep
from cfr_fast.data.synthetic.shapes import Shape, scatter, slab


def sandwich(canvas: Canvas, rng: np.random.Generator) -> Shape:
    """Two embossed biscuits with cream between them; the upper one is smaller."""
    r, theta = np.hypot(canvas.u, canvas.v), np.arctan2(canvas.v, canvas.u)
    scallop = np.cos(theta * 28)
    lower = slab(canvas, 40 + 0.6 * scallop - r, 7.5, 1.5)
    drift = rng.uniform(-0.8, 0.8, 2).tolist()
    cream_inside = 36.6 + 0.5 * canvas.noise(rng, 8.0) - np.hypot(canvas.u - drift[0], canvas.v - drift[1])
    cream = slab(canvas, cream_inside, 11.5, 2.0)
    shift = rng.uniform(-0.7, 0.7, 2).tolist()
    upper_r = np.hypot(canvas.u - shift[0], canvas.v - shift[1])
    upper = slab(canvas, 32.5 + 0.6 * scallop - upper_r, 17.0, 1.5)
    petals = 14.5 + 3.5 * np.cos(theta * 6)
    relief = 0.6 * smoothstep(1.6, 0.6, np.abs(upper_r - 25))
    relief = relief + 0.6 * smoothstep(1.8, 0.6, np.abs(upper_r - petals))
    relief = relief + 0.7 * smoothstep(4.5, 3.5, upper_r)
    relief = relief + 0.6 * smoothstep(0.2, 0.6, scallop) * smoothstep(26.5, 28, upper_r)
    for k in range(6):
        angle = (k + 0.5) * math.pi / 3
        hole_u, hole_v = 19 * math.cos(angle) + shift[0], 19 * math.sin(angle) + shift[1]
        relief = relief - 1.6 * smoothstep(1.7, 1.0, np.hypot(canvas.u - hole_u, canvas.v - hole_v))
    crumb = 0.12 * canvas.noise(rng, 1.6) + 0.1 * canvas.noise(rng, 4.0)
    on_top = (upper > 12.5).astype(np.float32)
    upper = upper + (relief + crumb) * on_top
    height = np.maximum(np.maximum(lower + crumb * (lower > 0), cream), upper)
    is_cream = ((cream >= height - 1e-3) & (cream > 0)).astype(np.float32)
    return Shape(height, {"cream": is_cream, "top": on_top})


def cookie(canvas: Canvas, rng: np.random.Generator) -> Shape:
    """An uneven round of dough, cracked, with chocolate chips."""
    r, theta = np.hypot(canvas.u, canvas.v), np.arctan2(canvas.v, canvas.u)
    outline = 38 + canvas.noise(rng, 14.0) * 0.5
    for k in (2, 3, 5):
        outline = outline + rng.uniform(0.2, 0.6) * np.cos(k * theta + rng.uniform(0, 2 * math.pi))
    inside = outline - r
    height = slab(canvas, inside, 11 + 3.5 * (1 - (r / 38) ** 2), 6.0)
    dough = 0.3 * canvas.noise(rng, 7.0) + 0.2 * canvas.noise(rng, 2.4) + 0.1 * canvas.noise(rng, 1.2)
    crack = smoothstep(0.1, 0.02, np.abs(canvas.noise(rng, 16.0))) * smoothstep(3, 8, inside)
    solid = smoothstep(0.3, 2, inside)
    height = height + (dough - 0.5 * crack) * solid
    chip = np.zeros_like(height)
    for u, v in scatter(rng, int(rng.integers(11, 16)), 9.0, lambda u, v: math.hypot(u, v) < 32):
        radius, stretch, turn = rng.uniform(2.8, 4.2), rng.uniform(0.75, 1), rng.uniform(0, math.pi)
        at = canvas.window(u, v, radius + 2)
        du, dv = canvas.u[at] - u, canvas.v[at] - v
        a = math.cos(turn) * du + math.sin(turn) * dv
        b = (math.cos(turn) * dv - math.sin(turn) * du) / stretch
        distance = np.hypot(a, b) / radius
        cover = smoothstep(1.0, 0.85, distance)
        height[at] += 1.9 * np.sqrt(np.clip(1 - distance**2, 0, 1))
        chip[at] = np.maximum(chip[at], cover)
    return Shape(height, {"chip": chip, "crack": crack, "inside": inside})


def wafer(canvas: Canvas, rng: np.random.Generator) -> Shape:
    """A rectangular waffle: ribs around square pockets."""
    pitch, columns, rows = 8.6, 8, 6
    half_u, half_v, corner = pitch * columns / 2 + 1.3, pitch * rows / 2 + 1.3, 3.0
    q_u, q_v = np.abs(canvas.u) - (half_u - corner), np.abs(canvas.v) - (half_v - corner)
    outside = np.hypot(np.maximum(q_u, 0), np.maximum(q_v, 0)) + np.minimum(np.maximum(q_u, q_v), 0)
    inside = corner - outside + 0.15 * canvas.noise(rng, 5.0)
    rib_u = np.abs(canvas.u / pitch - np.floor(canvas.u / pitch) - 0.5) * 2
    rib_v = np.abs(canvas.v / pitch - np.floor(canvas.v / pitch) - 0.5) * 2
    rib = smoothstep(0.35, 0.8, np.maximum(rib_u, rib_v))
    rib = np.maximum(rib, smoothstep(2.6, 1.8, inside))
    bake = canvas.noise(rng, 16.0)
    height = slab(canvas, inside, 10 + 2.2 * rib + 0.25 * bake, 1.0)
    height = height + (0.08 * canvas.noise(rng, 1.3) + 0.08 * canvas.noise(rng, 3.0)) * (height > 0)
    return Shape(height, {"rib": rib})


def donut(canvas: Canvas, rng: np.random.Generator) -> Shape:
    """A ring with icing that ran unevenly, strewn with sprinkles."""
    theta = np.arctan2(canvas.v, canvas.u)
    r = np.hypot(canvas.u, canvas.v) + 0.4 * canvas.noise(rng, 16.0)
    off = np.abs(r - 25)
    inside = 14.8 - off
    height = slab(canvas, inside, 9 + 12 * np.sqrt(np.clip(1 - (off / 15.2) ** 2, 0, 1)), 1.0)
    edge = 11.0 + 0.6 * canvas.noise(rng, 7.0) + 0.5 * np.cos(9 * theta + rng.uniform(0, 2 * math.pi)) - off
    icing = smoothstep(-0.2, 0.5, edge)
    height = height + 1.1 * np.sqrt(np.clip(edge / 1.5, 0, 1)) * icing
    height = height + 0.08 * canvas.noise(rng, 1.5) * (1 - icing) * (height > 0)
    owner = np.full(height.shape, -1, dtype=np.int32)
    centres = scatter(rng, 46, 6.2, lambda u, v: abs(math.hypot(u, v) - 25) < 7.6)
    for number, (u, v) in enumerate(centres):
        turn, half, radius = rng.uniform(0, math.pi), rng.uniform(1.9, 2.5), 1.25
        at = canvas.window(u, v, half + radius)
        du, dv = canvas.u[at] - u, canvas.v[at] - v
        a = math.cos(turn) * du + math.sin(turn) * dv
        b = math.cos(turn) * dv - math.sin(turn) * du
        distance = np.hypot(a - np.clip(a, -half, half), b)
        height[at] += 1.3 * np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1))
        owner[at][distance < radius] = number
    return Shape(height, {"icing": icing}, owner, len(centres))
