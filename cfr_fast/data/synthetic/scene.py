"""One sample: part, material, pose, light and sensor from independent random streams, then rendered."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_fill_holes, label

from cfr_fast.data.camera import Camera
from cfr_fast.data.sample import Sample
from cfr_fast.data.synthetic.camera import FOCAL, Pose, bilinear, cast
from cfr_fast.data.synthetic.canvas import PART_HALF, TABLE_HALF, Canvas, Grid, Place
from cfr_fast.data.synthetic.catalogue import RECIPES
from cfr_fast.data.synthetic.defects import DEFECTS
from cfr_fast.data.synthetic.materials import Look, mix
from cfr_fast.data.synthetic.sensor import Sensor, develop
from cfr_fast.data.synthetic.shading import Light, shade_part, shade_table
from cfr_fast.errors import InputError

SPLITS = ("train", "validation", "test")

TABLE_DISTANCE = 5.0
"""Points up to this height (mm) count as table in a prepared cloud."""

HEADROOM = 4.5
"""Defects raise a part's highest point by less than this (mm): unharmed and harmed rays take equal steps."""

VISIBLE_LEVELS, VISIBLE_DEPTH = 10.0, 0.35
"""A pixel is defective where colour or depth (mm) differs by at least this from the flawless render."""


@dataclass(frozen=True)
class Render:
    """A scene without noise: grey levels [S, S, 3], depth [S, S] and height above the table [S, S] in mm."""

    rgb: NDArray[np.float32]
    depth: Grid
    height: Grid


@dataclass(frozen=True)
class Scene:
    """Everything about a sample but its defect and its pixels' noise.

    Args:
        pose: of the camera.
        canvas: the ground that the part is modelled on.
        light: the lamp.
        height: surface of the unharmed part on the canvas.
        look: its material.
        table: linear colour of the table on the canvas, [N, N, 3].
        bare_colour, bare_depth: the table alone, seen by every pixel.
    """

    pose: Pose
    canvas: Canvas
    light: Light
    height: Grid
    look: Look
    table: NDArray[np.float32]
    bare_colour: NDArray[np.float32]
    bare_depth: Grid

    def render(self, height: Grid, look: Look) -> Render:
        """The scene with this surface and material; the surface lies within the unharmed outline."""
        top = float(self.height.max()) + HEADROOM
        window = self.pose.window(self.canvas, self.height)
        view = cast(self.pose, self.canvas, height, top, window)
        part = shade_part(self.canvas, height, look, self.light)
        surface = mix(self.table, part, np.clip(height / 4, 0, 1))
        colour, depth, above = self.bare_colour.copy(), self.bare_depth.copy(), np.zeros_like(self.bare_depth)
        colour[window] = bilinear(surface, view.row, view.col)
        depth[window], above[window] = view.depth, view.height
        return Render(develop(colour), depth, above)


def categories() -> tuple[str, ...]:
    """Names of all categories, sorted."""
    return tuple(RECIPES)


def one_to_many() -> tuple[str, ...]:
    """The categories in which one shape goes with many colourings."""
    return tuple(name for name, recipe in RECIPES.items() if recipe.one_to_many)


def defects() -> tuple[str, ...]:
    """Names of all defect types, sorted; every category can have each."""
    return tuple(DEFECTS)


def intrinsics(size: int) -> Camera:
    """The pinhole camera of all samples whose images are size×size."""
    return Camera(FOCAL * size, FOCAL * size, (size - 1) / 2, (size - 1) / 2, size, size)


def make_sample(
    category: str,
    index: int,
    split: str = "train",
    defect: str = "good",
    seed: int = 0,
    size: int = 256,
    background: bool = False,
) -> Sample:
    """Make one sample; the same arguments give the same bytes, whatever was made before.

    The defect is no part of the seed: the "good" sample of the same index is the same part, unharmed.

    Args:
        category: one of `categories()`.
        index: which sample, from 0.
        split: "train", "validation" or "test".
        defect: "good" or one of `defects()`.
        seed: seed of the whole set.
        size: image side in pixels, 64 to 2048.
        background: keep the table's points in xyz; by default points at most 5 mm above it are zeros, as
            after preparation. The photo always shows the table.

    Returns:
        A sample with rgb [size, size, 3], xyz in metres in camera coordinates (`intrinsics(size)`), and
        its exact ground truth: the pixels whose colour or depth visibly differs from the unharmed part.

    Raises:
        InputError: an unknown name, a negative index or seed, a size out of range.
    """
    check_category(category)
    for argument, name, known in (("split", split, SPLITS), ("defect", defect, ("good", *defects()))):
        if name not in known:
            raise InputError(argument, "one of " + ", ".join(known), repr(name))
    check_number("index", index, 0, 2**32 - 1)
    check_number("seed", seed, 0, 2**64 - 1)
    check_number("size", size, 64, 2048)
    scene = make_scene(category, index, split, seed, size)
    good = shown = scene.render(scene.height, scene.look)
    mask = np.zeros((size, size), dtype=bool)
    if defect != "good":
        rng = _stream(f"defect {defect}", seed, category, split, index)
        height, look = DEFECTS[defect](scene.canvas, scene.height, scene.look, rng)
        shown = scene.render(height, look)
        mask = difference_mask(good, shown)
    sensor = Sensor.draw(size, _stream("sensor", seed, category, split, index))
    xyz = sensor.measure(scene.pose, shown.depth)
    if not background:
        xyz[shown.height <= TABLE_DISTANCE] = 0
    name = f"{category}/{split}/{defect}/{index:03d}"
    return Sample(sensor.expose(shown.rgb), xyz, mask, name, defect)


def make_scene(category: str, index: int, split: str, seed: int, size: int) -> Scene:
    """Draw everything that the defect does not touch."""

    def stream(purpose: str) -> np.random.Generator:
        return _stream(purpose, seed, category, split, index)

    recipe = RECIPES[category]
    rng = stream("pose")
    turn, scale = float(rng.uniform(-recipe.spin, recipe.spin)), float(rng.uniform(0.96, 1.04))
    x, y = rng.uniform(-6, 6, 2).tolist()
    place = Place(turn, (x, y), scale)
    pose = Pose.draw(size, rng)
    count = round(1.3 * size)
    spacing = 2 * TABLE_HALF / (count - 1)
    margin = int((TABLE_HALF - PART_HALF) / spacing)
    ground, canvas = Canvas(count, spacing, place), Canvas(count - 2 * margin, spacing, place)
    light = Light.draw(stream("light"))
    shape = recipe.shape(canvas, stream("shape"))
    look = recipe.look(canvas, shape, stream("material"))
    height = (shape.height * np.float32(scale)).astype(np.float32)
    table = shade_table(ground, np.pad(height, margin), recipe.belt, light, stream("table"))
    bare = cast(pose, ground, None, 0.0, (slice(None), slice(None)))
    below = np.ascontiguousarray(table[margin : count - margin, margin : count - margin])
    bare_colour = bilinear(table, bare.row, bare.col)
    return Scene(pose, canvas, light, height, look, below, bare_colour, bare.depth)


def difference_mask(good: Render, harmed: Render) -> NDArray[np.bool_]:
    """Where two renders of a part visibly differ, on the part or where it should be: bool [S, S]."""
    colour = np.abs(good.rgb - harmed.rgb).max(axis=2) >= VISIBLE_LEVELS
    depth = np.abs(good.depth - harmed.depth) >= VISIBLE_DEPTH
    on_part = (good.height > 0.5) | (harmed.height > 0.5)
    differs = (colour | depth) & on_part
    side = differs.shape[0]
    reach = max(2, round(side / 85))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    padded = np.pad(differs, reach)
    closed = binary_closing(padded, x * x + y * y <= reach * reach)[reach:-reach, reach:-reach]
    filled = binary_fill_holes(closed) & on_part
    regions, count = label(filled, np.ones((3, 3)))
    if count > 1:
        area = np.bincount(regions.ravel())[1:]
        filled = np.isin(regions, 1 + np.flatnonzero(area >= 0.08 * area.max()))
    return np.asarray(filled, dtype=bool)


def _stream(purpose: str, seed: int, category: str, split: str, index: int) -> np.random.Generator:
    """A generator of its own for every purpose of every sample; stable over runs and platforms."""
    digests = [sha256(text.encode()).digest() for text in (purpose, category, split)]
    names = [int.from_bytes(digest[:8], "little") for digest in digests]
    return np.random.default_rng(np.random.SeedSequence([seed, *names, index]))


def check_category(category: str) -> None:
    """Raise InputError unless there is such a category."""
    if category not in categories():
        raise InputError("category", "one of " + ", ".join(categories()), repr(category))


def check_number(argument: str, value: int, low: int, high: int) -> None:
    """Raise InputError unless `value` is a whole number from `low` to `high`."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise InputError(argument, f"a whole number from {low} to {high}", repr(value))
