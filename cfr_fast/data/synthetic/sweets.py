"""Height fields of sweets; lengths in millimetres."""

from __future__ import annotations

import math

import numpy as np

from cfr_fast.data.synthetic.canvas import Canvas, smoothstep
from cfr_fast.data.synthetic.shapes import Shape, scatter, slab


def praline(canvas: Canvas, rng: np.random.Generator) -> Shape:
    """A rounded square of chocolate with raised drizzle."""
    power = 3.6
    rho = (np.abs(canvas.u) ** power + np.abs(canvas.v) ** power) ** (1 / power)
    inside = 33 - rho
    height = slab(canvas, inside, 18 + 5 * (1 - (rho / 33) ** 2), 9.0)
    turn, phase, start = rng.uniform(0.5, 0.75), rng.uniform(0, 2 * math.pi), rng.uniform(0, 9)
    along = math.cos(turn) * canvas.u + math.sin(turn) * canvas.v
    across = math.cos(turn) * canvas.v - math.sin(turn) * canvas.u
    across = across + 1.3 * np.sin(along / 7 + phase) + start
    distance = np.abs(across / 9 - np.floor(across / 9) - 0.5) * 9
    top = smoothstep(5.0, 6.5, inside)
    ridge = np.sqrt(np.clip(1 - (distance / 1.7) ** 2, 0, 1)) * top
    height = height + 1.3 * ridge + 0.05 * canvas.noise(rng, 4.0) * (height > 0)
    return Shape(height, {"drizzle": smoothstep(1.9, 1.4, distance) * top})


def candy_cane(canvas: Canvas, rng: np.random.Generator) -> Shape:
    """A tube bent into a hook; maps: length along it and angle around it, for the stripes."""
    radius, bend, straight, tail = 9.5 * rng.uniform(0.97, 1.03), 17.0, 46.0, 7.0
    u, v = canvas.u, canvas.v - 14
    arc = np.arctan2(np.maximum(v, 0), u)
    around = np.hypot(u, v) - bend
    shaft_v, tail_v = np.clip(v, -straight, 0), np.clip(v, -tail, 0)
    shaft, end = np.hypot(u - bend, v - shaft_v), np.hypot(u + bend, v - tail_v)
    bow = v > 0
    on_tail = ~bow & (end < shaft)
    distance = np.where(bow, np.abs(around), np.where(on_tail, end, shaft)).astype(np.float32)
    side = np.where(bow, around, np.where(on_tail, -bend - u, u - bend))
    length = np.where(bow, bend * arc, np.where(on_tail, bend * math.pi - v, v))
    inside = radius - distance
    height = slab(canvas, inside, 2 * radius, radius * 0.999)
    height = height + 0.05 * canvas.noise(rng, 3.0) * (height > 0)
    turn = np.arcsin(np.clip(side / radius, -1, 1))
    return Shape(height, {"length": length.astype(np.float32), "turn": turn.astype(np.float32)})


def confetti(canvas: Canvas, rng: np.random.Generator) -> Shape:
    """A round of chocolate strewn with beads."""
    r = np.hypot(canvas.u, canvas.v)
    inside = 36.5 + 0.3 * canvas.noise(rng, 12.0) - r
    height = slab(canvas, inside, 12.5 + 0.06 * canvas.noise(rng, 4.0), 4.0)
    owner = np.full(height.shape, -1, dtype=np.int32)
    centres = scatter(rng, 105, 5.0, lambda u, v: math.hypot(u, v) < 32.5)
    for number, (u, v) in enumerate(centres):
        radius = rng.uniform(2.0, 2.5)
        at = canvas.window(u, v, radius)
        distance = np.hypot(canvas.u[at] - u, canvas.v[at] - v)
        height[at] += 1.7 * np.sqrt(np.clip(1 - (distance / radius) ** 2, 0, 1))
        owner[at][distance < radius] = number
    return Shape(height, owner=owner, owners=len(centres))


def gummy(canvas: Canvas, rng: np.random.Generator) -> Shape:
    """A bear: blobs that melt into each other; map: how far up the bear a point lies."""
    blobs: list[tuple[float, float, float, float, float]]
    blobs = [(0, -8, 16.5, 18, 18.5), (0, 19, 15.5, 13.5, 18.5), (0, 15, 6, 4.8, 21.5)]
    for side in (-1, 1):
        blobs += [
            (side * 11.5, 30, 5.2, 5.2, 13),
            (side * 15, 0, 7, 8.5, 15.5),
            (side * 11, -26, 8.5, 11, 17),
        ]
        blobs += [(side * 5.5, 22.5, 1.9, 1.9, 19.8)]
    total = np.zeros((canvas.count, canvas.count), dtype=np.float32)
    for u, v, half_u, half_v, top in blobs:
        size = rng.uniform(0.97, 1.03, 2).tolist()
        at = canvas.window(u, v, 1.05 * max(half_u, half_v))
        rho2 = ((canvas.u[at] - u) / (half_u * size[0])) ** 2 + ((canvas.v[at] - v) / (half_v * size[1])) ** 2
        blob = 6.5 + (top - 6.5) * np.sqrt(np.clip(1 - rho2, 0, 1))
        edge = np.clip((1 - rho2) * min(half_u, half_v) / (2 * canvas.spacing) + 0.5, 0, 1)
        total[at] += (blob * edge).astype(np.float32) ** 8
    height = total ** (1 / 8)
    height = height + 0.05 * canvas.noise(rng, 3.0) * (height > 0)
    return Shape(height, {"up": canvas.v})
