"""Preparation of a sample: its background removed, so that valid points are the object's."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.background import (
    DISTANCE_TOLERANCE,
    PlaneRecipe,
    border_of,
    fit_plane,
    in_front,
    off_plane,
    spacing_of,
)
from cfr_fast.data.sample import Sample
from cfr_fast.errors import InputError

Background = Literal["auto", "plane", "distance", "none"]

# A border with fewer valid points than this share shows no background.
FREE_BORDER = 0.1
# An object fills at least this share of the image, and a background plane at least half of the valid border.
SMALLEST_OBJECT = 0.005
SMALLEST_SUPPORT = 0.5


def is_prepared(sample: Sample) -> bool:
    """Whether the background is gone already: at most a tenth of the image border (10 pixels) is valid.

    A cloud that never had a background (an object in the void) counts as prepared too.
    """
    return _is_free(sample.valid)


def prepare(
    sample: Sample, background: Background = "auto", seed: int = 0, recipe: PlaneRecipe | None = None
) -> Sample:
    """Remove the background from a sample's points.

    A new sample comes back: the points removed are exact zeros, everything else is untouched, the photo
    included. Prepared data comes back as it is, so preparing twice changes nothing.

    Args:
        sample: as it was measured.
        background: ``plane``, the usual preparation of MVTec 3D-AD: a plane through the points of the image
            border, and what lies within 5 mm of it, goes; the largest cluster of the rest stays.
            ``distance``, for Eyecandies and any other scale: everything behind or upon that plane goes, and so
            do walls, the pieces that reach the image border.
            ``none`` keeps every point.
            ``auto`` takes ``plane`` where the recipe's lengths suit the cloud's sampling (see below), else
            or if that leaves no object ``distance``, and keeps every point if neither finds an object on a
            background: a surface that fills the view is never wiped out.
        seed: of the random trials; the same seed gives the same bytes.
        recipe: the lengths of ``plane``, by default MVTec 3D-AD's. They suit a cloud when a flat
            neighbourhood of the clustering radius holds four times the points it needs, and the removal
            distance is at most a tenth of the shorter side of the view.

    Raises:
        InputError: `background` is unknown; or ``plane`` or ``distance``, asked for by name, finds no
            background or no object (at least 0.5 % of the pixels, leaving the image border free).
    """
    if background not in get_args(Background):
        raise InputError("background", f"one of {', '.join(get_args(Background))}", repr(background))
    if background == "none" or is_prepared(sample):
        return sample
    recipe = recipe or PlaneRecipe()
    spacing = spacing_of(sample.xyz)
    if background != "auto":
        keep, problem = _object_mask(sample, background, spacing, seed, recipe)
        if problem:
            raise InputError(
                f"background of sample {sample.name!r}",
                f"an object on a flat background for {background!r} ('none' keeps every point)",
                problem,
            )
        return _masked(sample, keep)
    for method in ("plane", "distance") if _suits(recipe, spacing, sample.shape) else ("distance",):
        keep, problem = _object_mask(sample, method, spacing, seed, recipe)
        if not problem:
            return _masked(sample, keep)
    return sample


def _object_mask(
    sample: Sample, method: str, spacing: float, seed: int, recipe: PlaneRecipe
) -> tuple[NDArray[np.bool_], str]:
    """Pixels of the object (bool [H, W]), and what is wrong with them, empty where they can be used."""
    nothing = np.zeros(sample.shape, bool)
    rim = sample.xyz[border_of(sample.shape, recipe.border) & sample.valid]
    distance = float(np.median(np.linalg.norm(rim, axis=1)))
    tolerance = recipe.inlier_distance if method == "plane" else DISTANCE_TOLERANCE * distance
    plane = fit_plane(rim, tolerance, recipe.iterations, np.random.default_rng(seed))
    if plane is None or plane.support < SMALLEST_SUPPORT or spacing == 0:
        return nothing, "no plane along the image border"
    keep = off_plane(sample.xyz, plane, recipe) if method == "plane" else in_front(sample.xyz, plane, spacing)
    share = float(keep.mean())
    if share < SMALLEST_OBJECT:
        return nothing, f"{np.count_nonzero(keep)} points ({share:.2%} of the pixels) apart from it"
    # This also makes preparation idempotent: what comes back is recognised as prepared.
    if not _is_free(keep):
        return nothing, "an object that reaches far along the image border"
    return keep, ""


def _suits(recipe: PlaneRecipe, spacing: float, shape: tuple[int, int]) -> bool:
    neighbours = np.pi * (recipe.cluster_radius / spacing) ** 2 if spacing else 0.0
    return neighbours >= 4 * recipe.cluster_points and 10 * recipe.removal_distance <= spacing * min(shape)


def _is_free(valid: NDArray[np.bool_]) -> bool:
    return float(valid[border_of((valid.shape[0], valid.shape[1]), 10)].mean()) <= FREE_BORDER


def _masked(sample: Sample, keep: NDArray[np.bool_]) -> Sample:
    return replace(sample, xyz=np.where(keep[..., None], sample.xyz, np.float32(0)))
