"""Farthest point sampling: centres of point groups and the coreset of a memory bank."""

from __future__ import annotations

import torch
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import loader, reference, registry
from cfr_fast.ops.checks import check_count, check_matrix, check_same, describe


def farthest_point_sample(points: Tensor, count: int, initial_distance: Tensor | None = None) -> Tensor:
    """Greedy k-center selection: always the row farthest from all rows picked so far.

    Serves both farthest point sampling of clouds (D = 3) and the coreset of PatchCore (Roth et al. 2022,
    "approximate greedy coreset"; D = 128). Native kernels serve float32. That of the CPU picks the rows of
    the plain loop but computes only those distances that can decide a pick. That of CUDA devices reads all
    rows for every pick and, where D > 3, adds squares in an order of its own: rows whose distances differ by
    rounding only may change places. There is no gradient.

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
    points = points.detach()
    initial_distance = None if initial_distance is None else initial_distance.detach()
    if points.dtype != torch.float32:
        return reference.farthest_point_sample(points, count, initial_distance)
    loader.ready()
    index: Tensor = torch.ops.cfr_fast.farthest_point_sample(points, count, initial_distance)
    return index


def _fake(points: Tensor, count: int, initial_distance: Tensor | None = None) -> Tensor:
    return points.new_empty((count,), dtype=torch.int64)


registry.OPS.append(registry.NativeOp("farthest_point_sample", reference.farthest_point_sample, _fake))
