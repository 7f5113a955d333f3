"""What the parts are made of: colour, gloss and filling, drawn apart from their shape.

In a one-to-one category the colour follows from the shape (a raised chip is chocolate). In a one-to-many
category colours are drawn from a palette for every sample, or for every bead of it, whatever the shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.synthetic.canvas import Canvas, Grid, smoothstep
from cfr_fast.data.synthetic.shapes import Shape

Colour = NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """How a surface answers to light.

    Args:
        albedo: float32 [N, N, 3], linear.
        gloss: strength of the highlight: float32 [N, N].
        sharpness: exponent of the highlight.
        glow: share of light that wanders through the body, 0 for chocolate, near 1 for jelly.
        filling: linear colour of the inside, which holes lay bare.
    """

    albedo: NDArray[np.float32]
    gloss: Grid
    sharpness: float
    glow: float
    filling: Colour


def linear(hexadecimal: str) -> Colour:
    """Linear RGB of an sRGB colour such as ``"7a4a2b"``."""
    value = np.array([int(hexadecimal[k : k + 2], 16) for k in (0, 2, 4)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


def mix(base: Grid | Colour, other: Grid | Colour, share: Grid) -> NDArray[np.float32]:
    """`base` and `other` (colours or images of them) blended by `share` [N, N]."""
    return np.asarray(base + (other - base) * share[..., None], dtype=np.float32)


CANE = tuple(map(linear, ("d3202e", "1f8f4d", "e8772e", "7b3fa0", "2b6fc2", "e2589a")))
BEADS = tuple(map(linear, ("e23b3b", "f08a24", "f6d33c", "48b050", "3f86d8", "ea6fb0", "f3efe6")))
JELLY = tuple(map(linear, ("cc1f2a", "ee7a1a", "f2c11d", "4fae3a", "c2357f")))
ICING = tuple(map(linear, ("ee8db4", "f4ead6", "6b3d25", "a9d8b4", "f5d76a", "b99adb")))


def praline(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> Look:
    """Dark chocolate, milk-white drizzle."""
    albedo = linear("5a3220") * _batch(rng) * _grain(canvas, rng, 5.0, 0.05)
    albedo = mix(albedo, linear("f0dcb8"), shape.maps["drizzle"])
    return Look(albedo, _even(canvas, 0.22), 70, 0.05, linear("b98a5a"))


def sandwich(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> Look:
    """Cocoa biscuit, white cream."""
    albedo = linear("6e4a34") * _batch(rng) * _grain(canvas, rng, 1.5, 0.13) * _grain(canvas, rng, 9.0, 0.05)
    albedo = mix(albedo, linear("f3ead8"), shape.maps["cream"])
    return Look(albedo, _even(canvas, 0.03), 10, 0.05, linear("f0e4cc"))


def cookie(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> Look:
    """Golden dough, browner at the rim, dark chips."""
    albedo = linear("d9a25f") * _batch(rng) * _grain(canvas, rng, 1.4, 0.1) * _grain(canvas, rng, 6.0, 0.07)
    albedo = mix(albedo, linear("a9672f"), 0.7 * smoothstep(9, 0, shape.maps["inside"]))
    albedo = mix(albedo, linear("e6c48e"), 0.35 * shape.maps["crack"])
    chip = shape.maps["chip"]
    albedo = mix(albedo, linear("41241a"), chip)
    return Look(albedo, (0.02 + 0.16 * chip).astype(np.float32), 22, 0.05, linear("ecd09a"))


def wafer(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> Look:
    """Pale in the pockets, baked darker on the ribs."""
    albedo = linear("e9c27c") * _batch(rng) * _grain(canvas, rng, 1.5, 0.06) * _grain(canvas, rng, 14.0, 0.06)
    albedo = mix(albedo, linear("c98a40"), 0.85 * shape.maps["rib"])
    return Look(albedo, _even(canvas, 0.04), 12, 0.08, linear("e0b878"))


def candy_cane(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> Look:
    """White sugar with a wide and a thin stripe; their colours and their phase are drawn anew."""
    wide, thin = rng.permutation(len(CANE))[:2]
    pitch, start = 18.0, rng.uniform(0, 18)
    phase = (shape.maps["length"] + start) / pitch + shape.maps["turn"] / (2 * math.pi)
    phase = phase - np.floor(phase)
    albedo = linear("f4eee4") * _batch(rng) * _grain(canvas, rng, 5.0, 0.03)
    soft = 0.35 * canvas.spacing / pitch + 0.012
    albedo = mix(albedo, CANE[wide], _band(phase, 0.24, 0.17, soft))
    albedo = mix(albedo, CANE[thin], _band(phase, 0.66, 0.07, soft))
    return Look(albedo, _even(canvas, 0.3), 40, 0.15, linear("f6f2ea"))


def confetti(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> Look:
    """Milk chocolate; every bead draws its colour."""
    albedo = linear("80502f") * _batch(rng) * _grain(canvas, rng, 5.0, 0.05)
    albedo, bead = _strewn(albedo, shape, rng)
    return Look(albedo, (0.12 + 0.1 * bead).astype(np.float32), 55, 0.08, linear("d9b98c"))


def gummy(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> Look:
    """Jelly of two colours, drawn anew, that flow into each other; brighter where it is thin."""
    upper, lower = rng.permutation(len(JELLY))[:2]
    middle, width = rng.uniform(-12, 14), rng.uniform(10, 20)
    share = smoothstep(middle - width, middle + width, shape.maps["up"] + 2 * canvas.noise(rng, 12.0))
    albedo = mix(JELLY[lower], JELLY[upper], share) * _batch(rng)
    thin = smoothstep(19, 6, shape.height)
    albedo = albedo * (0.85 + 0.35 * thin)[..., None]
    return Look(
        albedo.astype(np.float32),
        _even(canvas, 0.34),
        50,
        0.6,
        (JELLY[lower] + JELLY[upper]) * np.float32(0.7),
    )


def donut(canvas: Canvas, shape: Shape, rng: np.random.Generator) -> Look:
    """Golden dough; the icing draws one colour, every sprinkle its own."""
    albedo = linear("cf9350") * _batch(rng) * _grain(canvas, rng, 1.5, 0.07) * _grain(canvas, rng, 8.0, 0.06)
    icing = shape.maps["icing"]
    albedo = mix(albedo, ICING[int(rng.integers(len(ICING)))], icing)
    albedo, sprinkle = _strewn(albedo, shape, rng)
    gloss = 0.03 + 0.2 * np.maximum(icing, sprinkle)
    return Look(albedo, gloss.astype(np.float32), 60, 0.08, linear("f2d79c"))


def _strewn(albedo: NDArray[np.float32], shape: Shape, rng: np.random.Generator) -> tuple[Grid, Grid]:
    """Colour every bead; also returns where beads are."""
    assert shape.owner is not None
    colour = np.stack(BEADS)[rng.integers(len(BEADS), size=shape.owners)]
    owned = shape.owner >= 0
    albedo = albedo.copy()
    albedo[owned] = colour[shape.owner[owned]]
    return albedo, owned.astype(np.float32)


def _band(phase: Grid, centre: float, half: float, soft: float) -> Grid:
    return smoothstep(half + soft, half - soft, np.abs(phase - np.float32(centre)))


def _batch(rng: np.random.Generator) -> Colour:
    """A slight difference between batches, in brightness and hue."""
    return (rng.uniform(0.95, 1.05) * rng.uniform(0.98, 1.02, 3)).astype(np.float32)


def _grain(canvas: Canvas, rng: np.random.Generator, cell: float, strength: float) -> NDArray[np.float32]:
    return np.asarray(np.clip(1 + strength * canvas.noise(rng, cell), 0.5, 1.5)[..., None], dtype=np.float32)


def _even(canvas: Canvas, value: float) -> Grid:
    return np.full((canvas.count, canvas.count), value, dtype=np.float32)
