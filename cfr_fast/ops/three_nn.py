"""Three nearest centres: how tokens of point groups are interpolated to points."""

from __future__ import annotations

import torch
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import loader, reference, registry
from cfr_fast.ops.checks import check_matrix, check_same, describe


def three_nn(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The three centres nearest to every point, with inverse-distance weights (PointNet++, Qi et al. 2017).

    Native kernels serve float32 on the CPU and on CUDA devices, without the [N, G] matrix and with the same
    index. Index and weight carry no gradient.
    A distance that is not a number counts as nearest.

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
    points, centers = points.detach(), centers.detach()
    if points.dtype != torch.float32:
        return reference.three_nn(points, centers)
    loader.ready()
    index, weight = torch.ops.cfr_fast.three_nn(points, centers)
    return index, weight


def _fake(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    shape = (points.shape[0], 3)
    return points.new_empty(shape, dtype=torch.int64), points.new_empty(shape)


registry.OPS.append(registry.NativeOp("three_nn", reference.three_nn, _fake))
