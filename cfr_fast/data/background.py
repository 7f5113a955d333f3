"""Two ways to take a supporting surface away from an organized cloud: what they compute, no policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.cluster import dbscan
from cfr_fast.data.points import measured


@dataclass(frozen=True)
class PlaneRecipe:
    """Constants of MVTec 3D-AD's usual preparation, in metres; the defaults fit its parts of 5 to 15 cm.

    For another scale give all three lengths in proportion.

    Args:
        border: width in pixels of the image border where the background is looked for.
        iterations: RANSAC trials.
        inlier_distance: largest distance of a border point that supports the plane.
        removal_distance: points closer to the plane than this go.
        cluster_radius, cluster_points: DBSCAN's eps and minimum number of points; the largest cluster stays.
    """

    border: int = 10
    iterations: int = 1000
    inlier_distance: float = 0.004
    removal_distance: float = 0.005
    cluster_radius: float = 0.006
    cluster_points: int = 30


@dataclass(frozen=True)
class Plane:
    """The points p with normal·p = offset; the unit normal points towards the camera.

    Args:
        support: share of the points it was fitted to that lie within the inlier distance.
    """

    normal: NDArray[np.float64]
    offset: float
    support: float

    def height(self, xyz: NDArray[np.floating]) -> NDArray[np.float64]:
        """Signed distance of points [..., 3] → [...]; positive on the camera's side."""
        return np.asarray(xyz @ self.normal - self.offset)


def border_of(shape: tuple[int, int], width: int) -> NDArray[np.bool_]:
    """Pixels of the image border: bool [H, W]. At most a fortieth of the shorter side wide (10 of 400)."""
    width = max(1, min(width, min(shape) // 40))
    border = np.ones(shape, bool)
    border[width:-width, width:-width] = False
    return border


def fit_plane(
    points: NDArray[np.floating], inlier_distance: float, iterations: int, rng: np.random.Generator
) -> Plane | None:
    """Plane through most of the points [N, 3] by RANSAC, refitted to its inliers by least squares.

    The refit is what Open3D's ``segment_plane`` does, which the published preparation calls. Of trials with
    equally many inliers the first wins. None for fewer than three points, or all on one line.
    """
    points = np.asarray(points, np.float64)
    if len(points) < 3:
        return None
    centre = points.mean(axis=0)
    local = points - centre
    trio = local[rng.integers(0, len(local), (iterations, 3))]
    normals = np.cross(trio[:, 1] - trio[:, 0], trio[:, 2] - trio[:, 0])
    length = np.linalg.norm(normals, axis=1)
    usable = length > 1e-12 * np.abs(local).max() ** 2
    if not usable.any():
        return None
    normals = normals[usable] / length[usable, None]
    offsets = (normals * trio[usable, 0]).sum(axis=1)
    counts = np.zeros(len(normals), np.intp)
    for chunk in np.array_split(local, -(-len(local) // 2048)):  # bounds the memory
        counts += np.count_nonzero(np.abs(chunk @ normals.T - offsets) < inlier_distance, axis=0)
    best = int(counts.argmax())
    inliers = local[np.abs(local @ normals[best] - offsets[best]) < inlier_distance]
    middle = inliers.mean(axis=0)
    normal = np.linalg.eigh(np.cov((inliers - middle).T))[1][:, 0]
    offset = float(normal @ (middle + centre))
    if offset > 0:  # the camera, at the origin, has to lie on the positive side
        normal, offset = -normal, -offset
    support = np.count_nonzero(np.abs(points @ normal - offset) < inlier_distance) / len(points)
    return Plane(normal, offset, support)


def spacing_of(xyz: NDArray[np.float32]) -> float:
    """Median distance between valid points of neighbouring pixels, metres; 0 where no two are neighbours."""
    valid = measured(xyz)
    steps = []
    for axis in (0, 1):
        step = np.linalg.norm(np.diff(xyz, axis=axis), axis=2)
        both = valid[1:] & valid[:-1] if axis == 0 else valid[:, 1:] & valid[:, :-1]
        steps.append(step[both])
    together = np.concatenate(steps)
    return float(np.median(together)) if len(together) else 0.0


def largest_cluster(
    xyz: NDArray[np.float32], standing: NDArray[np.bool_], recipe: PlaneRecipe
) -> NDArray[np.bool_]:
    """Of the pixels `standing` off the plane, the largest cluster of points: bool [H, W]."""
    keep = standing.copy()
    labels = dbscan(xyz[keep], recipe.cluster_radius, recipe.cluster_points)
    keep[keep] = (labels >= 0) & (labels == _sizes(labels).argmax())
    return keep


def clearance(xyz: NDArray[np.float32], plane: Plane, tolerance: float) -> float:
    """How far from the plane the distance recipe cuts, without absolute lengths.

    A thousandth of the plane's distance to the camera, or where the surface is noisier four standard
    deviations of the points within `tolerance` of it.
    """
    height = np.abs(plane.height(xyz[measured(xyz)]))
    noise = 1.4826 * float(np.median(height[height < tolerance]))
    return max(0.001 * -plane.offset, 4 * noise)


def inner_pieces(xyz: NDArray[np.float32], standing: NDArray[np.bool_], spacing: float) -> NDArray[np.bool_]:
    """Of the pixels `standing` in front of the plane, those that are no wall: bool [H, W].

    They fall into pieces (DBSCAN within five pixel spacings). Walls are the pieces that reach the image
    border; they go, and so do crumbs below 2 % of the largest piece left. Where every piece reaches the
    border, the largest stays.
    """
    keep = standing.copy()
    labels = dbscan(xyz[keep], 5 * spacing, 10)
    sizes = _sizes(labels)
    sizes_inside = sizes.copy()
    reaching = labels[border_of((keep.shape[0], keep.shape[1]), 10)[keep]]
    sizes_inside[reaching[reaching >= 0]] = 0
    if sizes_inside.any():
        sizes = sizes_inside
    chosen = sizes >= max(1.0, (0.02 if sizes_inside.any() else 1.0) * sizes.max())
    keep[keep] = (labels >= 0) & chosen[labels]
    return keep


def _sizes(labels: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.bincount(labels[labels >= 0], minlength=1)
