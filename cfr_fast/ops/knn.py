"""K nearest points: the groups around the centres of a cloud."""

from __future__ import annotations

import torch
from torch import Tensor

from cfr_fast.ops import loader, reference, registry
from cfr_fast.ops.checks import check_count, check_matrix, check_same

MAX_ON_CUDA = 3072  # kMaxNeighbours of csrc/kernels.h


def knn(points: Tensor, centers: Tensor, k: int) -> Tensor:
    """The k points nearest to every centre by exact Euclidean distance.

    Native kernels serve float32 without the [G, N] matrix, on the CPU and, for k ≤ 3,072, on CUDA devices;
    all give the same rows. There is no gradient. A distance that is not a number counts as farthest.

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
    points, centers = points.detach(), centers.detach()
    if points.dtype != torch.float32 or (points.is_cuda and k > MAX_ON_CUDA):
        return reference.knn(points, centers, k)
    loader.ready()
    index: Tensor = torch.ops.cfr_fast.knn(points, centers, k)
    return index


def _fake(points: Tensor, centers: Tensor, k: int) -> Tensor:
    return points.new_empty((centers.shape[0], k), dtype=torch.int64)


registry.OPS.append(registry.NativeOp("knn", reference.knn, _fake))
