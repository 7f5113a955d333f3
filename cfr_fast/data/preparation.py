"""Preparation of a sample: its background removed, so that valid points are the object's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.background import (
    PlaneRecipe,
    border_of,
    clearance,
    fit_plane,
    inner_pieces,
    largest_cluster,
    spacing_of,
)
from cfr_fast.data.sample import Sample
from cfr_fast.errors import InputError

Background = Literal["auto", "plane", "distance", "none"]

# A border with fewer valid points than this share shows no background.
FREE_BORDER = 0.1
# An object fills at least this share of the image …
SMALLEST_OBJECT = 0.005
# … and a background plane this share of the valid border.
SMALLEST_SUPPORT = 0.5
# Distances from the plane within which the recipe without absolute lengths looks for support, the narrower
# first (the wider is for noisy sensors), as shares of the border's distance to the camera.
TOLERANCES = (0.002, 0.005)
# Points just below the cut (its last quarter), per point kept: an object stands clear of its background;
# where there are more, the cut runs through the swells of one surface.
LARGEST_SEAM = 0.25


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
            ``distance``, for Eyecandies and any other scale: everything behind or upon that plane goes, and
            so do walls, the pieces that reach the image border.
            ``none`` keeps every point.
            ``auto`` takes ``plane`` where the recipe's lengths suit the cloud's sampling (see below), else
            or if that leaves no object ``distance``, and keeps every point if neither finds an object that
            stands clear of a background: a surface that fills the view is not torn apart.
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
        found = _find_object(sample, background, spacing, seed, recipe)
        if found.problem:
            raise InputError(
                f"background of sample {sample.name!r}",
                f"an object on a flat background for {background!r} ('none' keeps every point)",
                found.problem,
            )
        return _masked(sample, found.keep)
    for method in ("plane", "distance") if _suits(recipe, spacing, sample.shape) else ("distance",):
        found = _find_object(sample, method, spacing, seed, recipe)
        if not found.problem and found.seam <= LARGEST_SEAM:
            return _masked(sample, found.keep)
    return sample


@dataclass(frozen=True, eq=False)
class _Found:
    keep: NDArray[np.bool_]  # [H, W]
    problem: str = ""  # what forbids its use
    seam: float = 0.0  # see LARGEST_SEAM


def _find_object(sample: Sample, method: str, spacing: float, seed: int, recipe: PlaneRecipe) -> _Found:
    xyz, valid = sample.xyz, sample.valid
    rim = xyz[border_of(sample.shape, recipe.border) & valid]
    if spacing == 0:
        return _Found(np.zeros_like(valid), "no two points in neighbouring pixels")
    if len(rim) == 0:
        return _Found(np.zeros_like(valid), "no point along the image border")
    if method == "plane":
        tolerances = [recipe.inlier_distance]
    else:
        distance = float(np.median(np.linalg.norm(rim, axis=1)))
        tolerances = [share * distance for share in TOLERANCES]
    plane = tolerance = None
    for tolerance in tolerances:
        plane = fit_plane(rim, tolerance, recipe.iterations, np.random.default_rng(seed))
        if plane is not None and plane.support >= SMALLEST_SUPPORT:
            break
    else:
        return _Found(np.zeros_like(valid), "no plane along the image border")
    height = plane.height(xyz)
    if method == "plane":
        height, cut = np.abs(height), recipe.removal_distance
        keep = largest_cluster(xyz, valid & (height > cut), recipe)
    else:
        cut = clearance(xyz, plane, tolerance)
        keep = inner_pieces(xyz, valid & (height > cut), spacing)
    count = np.count_nonzero(keep)
    if count < SMALLEST_OBJECT * keep.size:
        return _Found(keep, f"{count} points ({count / keep.size:.2%} of the pixels) apart from it")
    # This also makes preparation idempotent: what comes back is recognised as prepared.
    if not _is_free(keep):
        return _Found(keep, "an object that reaches far along the image border")
    at_the_cut = np.count_nonzero(valid & (height > 0.75 * cut) & (height <= cut))
    return _Found(keep, seam=at_the_cut / count)


def _suits(recipe: PlaneRecipe, spacing: float, shape: tuple[int, int]) -> bool:
    neighbours = np.pi * (recipe.cluster_radius / spacing) ** 2 if spacing else 0.0
    return neighbours >= 4 * recipe.cluster_points and 10 * recipe.removal_distance <= spacing * min(shape)


def _is_free(valid: NDArray[np.bool_]) -> bool:
    return float(valid[border_of((valid.shape[0], valid.shape[1]), 10)].mean()) <= FREE_BORDER


def _masked(sample: Sample, keep: NDArray[np.bool_]) -> Sample:
    return replace(sample, xyz=np.where(keep[..., None], sample.xyz, np.float32(0)))
