"""The categories: which shape goes with which material, on which belt, and how freely it is turned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cfr_fast.data.synthetic import biscuits, materials, sweets
from cfr_fast.data.synthetic.canvas import Canvas
from cfr_fast.data.synthetic.materials import Colour, Look, linear
from cfr_fast.data.synthetic.shapes import Shape


@dataclass(frozen=True)
class Recipe:
    """One category.

    Args:
        shape: makes the surface; never sees the material's random numbers.
        look: makes the material; never changes the surface.
        one_to_many: whether one shape goes with many colourings.
        spin: largest turn in the plane to either side, radians.
        belt: linear colour of the table.
    """

    shape: Callable[[Canvas, np.random.Generator], Shape]
    look: Callable[[Canvas, Shape, np.random.Generator], Look]
    one_to_many: bool
    spin: float
    belt: Colour


_BLUE, _GREY, _SLATE = linear("8fb0c4"), linear("b9bdbd"), linear("6d7f8a")

RECIPES: dict[str, Recipe] = {
    "candy_cane": Recipe(sweets.candy_cane, materials.candy_cane, True, 0.5, _SLATE),
    "confetti": Recipe(sweets.confetti, materials.confetti, True, math.pi, _GREY),
    "cookie": Recipe(biscuits.cookie, materials.cookie, False, math.pi, _BLUE),
    "donut": Recipe(biscuits.donut, materials.donut, True, math.pi, _SLATE),
    "gummy": Recipe(sweets.gummy, materials.gummy, True, 0.4, _GREY),
    "praline": Recipe(sweets.praline, materials.praline, False, 0.4, _BLUE),
    "sandwich": Recipe(biscuits.sandwich, materials.sandwich, False, 0.4, _BLUE),
    "wafer": Recipe(biscuits.wafer, materials.wafer, False, 0.4, _BLUE),
}
