"""DBSCAN in bounded memory, for clouds so dense that every point has thousands of neighbours.

Ester, Kriegel, Sander, Xu: A density-based algorithm for discovering clusters in large spatial databases with
noise, 1996; the grid shortcut follows Gunawan's and Gan & Tao's: in a cell whose diagonal is the
radius all points are neighbours, so neighbourhoods need listing only where points are few.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist


def dbscan(cloud: NDArray[np.floating], radius: float, min_points: int) -> NDArray[np.intp]:
    """Cluster labels of a cloud: [N, 3] → [N], −1 for noise.

    A point is a core point when at least `min_points` points, itself included, lie within `radius`; clusters
    are numbered by their first core point, and a point reached by several clusters joins the first of them.
    Exact: the labels are those of scikit-learn's ``DBSCAN(eps=radius, min_samples=min_points)``.
    """
    points: NDArray[np.float64] = np.ascontiguousarray(cloud, dtype=np.float64)
    labels = np.full(len(points), -1, np.intp)
    if len(points) == 0:
        return labels
    tree = cKDTree(points)
    cell, corners = _cells(points, radius)
    core = np.bincount(cell)[cell] >= min_points
    sparse = np.flatnonzero(~core)
    if len(sparse):
        core[sparse] = tree.query_ball_point(points[sparse], radius, return_length=True) >= min_points
    if not core.any():
        return labels
    found = _core_components(points, core, cell, corners, radius)
    _, first, label = np.unique(found, return_index=True, return_inverse=True)
    labels[core] = np.argsort(np.argsort(first))[label]
    rest = np.flatnonzero(~core)
    if len(rest):
        # A point that is no core point has fewer than min_points neighbours: these lists stay short.
        for index, neighbours in zip(rest, tree.query_ball_point(points[rest], radius), strict=True):
            reached = labels[[n for n in neighbours if core[n]]]
            if len(reached):
                labels[index] = reached.min()
    return labels


def _cells(points: NDArray[np.float64], radius: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Grid cell of each point [N] and the cells' integer corners [C, 3]; a cell's diagonal is < radius."""
    corner = np.floor((points - points.min(axis=0)) / (radius / np.sqrt(3) * (1 - 1e-6)))
    order = np.lexsort(corner.T)
    corner = corner[order]
    new = np.ones(len(corner), bool)
    new[1:] = (corner[1:] != corner[:-1]).any(axis=1)
    cell = np.empty(len(points), np.intp)
    cell[order] = np.cumsum(new) - 1
    return cell, corner[new]


def _core_components(
    points: NDArray[np.float64],
    core: NDArray[np.bool_],
    cell: NDArray[np.intp],
    corners: NDArray[np.float64],
    radius: float,
) -> NDArray[np.intp]:
    """Component [number of core points] under "at most `radius` apart"."""
    core_points = points[core]
    occupied, cell = np.unique(cell[core], return_inverse=True)
    order = np.argsort(cell, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(cell))])
    # Points within the radius lie at most two cells apart on every axis.
    pairs = cKDTree(corners[occupied]).query_pairs(2.5, p=np.inf, output_type="ndarray")
    count = len(occupied)

    # Most neighbouring cells are joined by one representative each (the point nearest to the cell's mean) …
    total = np.stack([np.bincount(cell, core_points[:, axis]) for axis in range(3)], axis=1)
    mean = total / np.bincount(cell)[:, None]
    off_centre = ((core_points - mean[cell]) ** 2).sum(axis=1)
    representative = core_points[np.lexsort((off_centre, cell))[starts[:-1]]]
    gap = representative[pairs[:, 0]] - representative[pairs[:, 1]]
    joined = pairs[(gap**2).sum(axis=1) <= radius**2]
    graph = coo_array((np.ones(len(joined), np.int8), (joined[:, 0], joined[:, 1])), shape=(count, count))
    component = connected_components(graph, directed=False)[1].astype(np.intp)

    # … the pairs that could still join two components are compared point by point.
    for a, b in pairs[component[pairs[:, 0]] != component[pairs[:, 1]]]:
        if component[a] == component[b]:
            continue
        left = core_points[order[starts[a] : starts[a + 1]]]
        right = core_points[order[starts[b] : starts[b + 1]]]
        if cdist(left, right, "sqeuclidean").min() <= radius**2:
            component[component == component[b]] = component[a]
    return np.asarray(component[cell])
