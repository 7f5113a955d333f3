"""The public ops that are served by their reference: checked, typed, documented."""

from __future__ import annotations

from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import reference
from cfr_fast.ops.checks import check_count, check_index, check_matrix, check_same, describe


def farthest_point_sample(points: Tensor, count: int, initial_distance: Tensor | None = None) -> Tensor:
    """Greedy k-center selection: always the row farthest from all rows picked so far.

    Serves both farthest point sampling of clouds (D = 3) and the coreset of PatchCore (Roth et al. 2022,
    "approximate greedy coreset"; D = 128).

    Args:
        points: float [N, D].
        count: rows to pick, 0 ≤ count ≤ N.
        initial_distance: float [N], Euclidean distance of every row to what is already covered; the first
            pick is its largest. Without it the first pick is row 0.

    Returns:
        int64 [count], in the order of picking. Ties go to the lower row. Once every row coincides with a
        picked one, row 0 or another covered row repeats.

    Raises:
        InputError: wrong shape, dtype or device; `count` out of range.
    """
    check_matrix("points", points)
    check_count("count", count, 0, points.shape[0], "a number of rows")
    if initial_distance is not None:
        if initial_distance.shape != points.shape[:1]:
            raise InputError("initial_distance", f"shape [{points.shape[0]}]", describe(initial_distance))
        check_same("initial_distance", initial_distance, points)
    return reference.farthest_point_sample(points, count, initial_distance)


def knn(points: Tensor, centers: Tensor, k: int) -> Tensor:
    """The k points nearest to every centre by exact Euclidean distance.

    Args:
        points: float [N, 3].
        centers: float [G, 3], same dtype and device.
        k: 0 ≤ k ≤ N.

    Returns:
        int64 [G, k], nearest first; ties go to the lower row.

    Raises:
        InputError: wrong shape, dtype or device; `k` out of range.
    """
    check_matrix("points", points, columns=3)
    check_matrix("centers", centers, columns=3)
    check_same("centers", centers, points)
    check_count("k", k, 0, points.shape[0], "a number of neighbours")
    return reference.knn(points, centers, k)


def three_nn(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The three centres nearest to every point, with inverse-distance weights (PointNet++, Qi et al. 2017).

    Args:
        points: float [N, 3].
        centers: float [G, 3] with G ≥ 3, same dtype and device.

    Returns:
        index: int64 [N, 3], nearest first; ties go to the lower row.
        weight: float [N, 3], 1 / (d² + 1e-8) normalised to sum one.

    Raises:
        InputError: wrong shape, dtype or device; fewer than three centres.
    """
    check_matrix("points", points, columns=3)
    check_matrix("centers", centers, columns=3)
    check_same("centers", centers, points)
    if centers.shape[0] < 3:
        raise InputError("centers", "at least 3 rows", describe(centers))
    return reference.three_nn(points, centers)


def topk_attention(query: Tensor, keys: Tensor, values: Tensor, index: Tensor, scale: float) -> Tensor:
    """Softmax attention of every query over its own k rows of a memory bank; differentiable.

    Args:
        query: float [U, d].
        keys: float [M, d], same dtype and device.
        values: float [M, Dv], same dtype and device.
        index: int64 [U, k], rows of the bank, 0 ≤ index < M (not checked: it would need a synchronisation).
        scale: factor on the dot products, d^-0.5 in CFR.

    Returns:
        float [U, Dv], Σ_j softmax_j(scale · q · k_j) v_j; zeros where k = 0.

    Raises:
        InputError: wrong shape, dtype or device.
    """
    check_matrix("query", query)
    check_matrix("keys", keys, columns=query.shape[1])
    check_matrix("values", values, rows=keys.shape[0])
    check_same("keys", keys, query)
    check_same("values", values, query)
    check_index("index", index, (query.shape[0], None), query)
    return reference.topk_attention(query, keys, values, index, scale)


def bank_attention(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Softmax attention of every query over a whole memory bank; differentiable.

    Args:
        query: float [N, d].
        keys: float [M, d] with M ≥ 1, same dtype and device.
        values: float [M, Dv], same dtype and device.
        scale: factor on the dot products.

    Returns:
        float [N, Dv].

    Raises:
        InputError: wrong shape, dtype or device; an empty bank.
    """
    check_matrix("query", query)
    check_matrix("keys", keys, columns=query.shape[1])
    check_matrix("values", values, rows=keys.shape[0])
    check_same("keys", keys, query)
    check_same("values", values, query)
    if keys.shape[0] == 0:
        raise InputError("keys", "at least one row", describe(keys))
    return reference.bank_attention(query, keys, values, scale)


__all__ = [
    "bank_attention",
    "farthest_point_sample",
    "knn",
    "three_nn",
    "topk_attention",
]
