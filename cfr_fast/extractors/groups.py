"""From point groups to pixels: three-nearest interpolation and both averages as one sparse operator."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from cfr_fast.extractors.field import FeatureField
from cfr_fast.ops import three_nn

BLOCK = 1 << 19  # elements of the largest matrix of expanded distances


def nearest_groups(points: Tensor, centers: Tensor, expanded: bool = False) -> tuple[Tensor, Tensor]:
    """The three groups nearest to every point, with inverse-distance weights, for clouds of any size.

    Args:
        points: float32 [n, 3].
        centers: float32 [G, 3].
        expanded: False takes exact distances (`three_nn`), True those of `expanded_distances`, as the
            authors' scripts do; their coarse rounding lets one point in sixty have a tie for the third group,
            which falls as torch's (unstable) sort lets it fall on the CPU.

    Returns:
        index: int64 [n, 3]; with fewer than three groups the last of them repeats.
        weight: float32 [n, 3], 1 / (d² + 1e-8) normalised to sum one; zero for repeated groups.
    """
    count = centers.shape[0]
    if not expanded and count >= 3:
        return three_nn(points, centers)
    index = torch.full((points.shape[0], 3), max(0, count - 1), device=points.device)
    weight = points.new_zeros(points.shape[0], 3)
    kept = min(3, count)
    step = max(1, BLOCK // max(1, count))
    for start in range(0, points.shape[0], step):
        rows = slice(start, start + step)
        part = points[rows]
        if expanded:
            squared = expanded_distances(part, centers)
        else:
            squared = (part[:, None] - centers).square().sum(dim=2)
        near, found = squared.topk(min(4, count), dim=1, largest=False)
        if expanded and count > 3:
            tied = (near[:, 2] == near[:, 3]).nonzero()[:, 0]
            found[tied] = squared[tied].cpu().sort(dim=1).indices[:, :4].to(found.device)
        inverse = 1 / (near[:, :kept] + 1e-8)
        index[rows, :kept] = found[:, :kept]
        weight[rows, :kept] = inverse / inverse.sum(dim=1, keepdim=True)
    return index, weight


def expanded_distances(points: Tensor, centers: Tensor) -> Tensor:
    """Squared distances as −2 a·b + ‖a‖² + ‖b‖² in float32, rounding included: [n, 3], [G, 3] → [n, G].

    Half a metre from the camera that rounding is about 1e-7 m²: it changes the weights of points near a
    centre, and may turn one negative. It depends on how a matrix product adds up; here it is spelled out as
    the fused multiply-adds x, y, z of the usual float32 product, so that every machine, device and number of
    threads gives the same digits. (A product of two float32 is exact in float64.)
    """
    product = points[:, :1] * centers[:, 0]
    for axis in (1, 2):
        exact = points[:, axis : axis + 1].double() * centers[:, axis].double()
        product = exact.add_(product).float()
    length = [(p[:, 0] * p[:, 0] + p[:, 1] * p[:, 1]) + p[:, 2] * p[:, 2] for p in (points, centers)]
    return product.mul_(-2).add_(length[0][:, None]).add_(length[1])


def group_field(tokens: Tensor, index: Tensor, weight: Tensor, measured: Tensor) -> FeatureField:
    """Pixel features from the features of point groups, as the paper's protocol carries them over.

    Every measured point takes the weighted sum of three groups; other pixels are zero; then a 3×3 average
    without padding and an adaptive average back to the size of the grid (`torch.nn.functional.avg_pool2d` and
    `adaptive_avg_pool2d`). All of that is linear in the tokens, and is composed into one operator.

    Args:
        tokens: float [G, D], features of the groups.
        index: int64 [n, 3], groups of every measured point, points in raster order.
        weight: float [n, 3], their weights.
        measured: bool [h, w] with n True pixels; h and w at least 3.

    Returns:
        FeatureField of h×w pixels, valid wherever a measured point lies in the averaged neighbourhood.
    """
    height, width = measured.shape
    points = measured.reshape(-1).nonzero()[:, 0].cpu().numpy()
    entries = (weight.cpu().numpy().ravel(), (np.repeat(points, 3), index.cpu().numpy().ravel()))
    nearest = sparse.csr_matrix(entries, shape=(height * width, tokens.shape[0]))
    pooled = sparse.kron(_averages(height), _averages(width), format="csr") @ nearest
    pooled.sort_indices()
    offset = torch.from_numpy(pooled.indptr.astype(np.int64))
    return FeatureField(
        tokens,
        offset.to(tokens.device),
        torch.from_numpy(pooled.indices.astype(np.int64)).to(tokens.device),
        torch.from_numpy(pooled.data).to(tokens),
        (offset.diff() > 0).to(tokens.device),
        (height, width),
    )


def _averages(size: int) -> sparse.csr_matrix:
    """Along one axis: the mean of three, size → size − 2, then the adaptive mean back to size."""
    inner = size - 2
    three = sparse.diags([1 / 3] * 3, [0, 1, 2], shape=(inner, size))
    cell = np.arange(size)
    start, end = cell * inner // size, -((-(cell + 1) * inner) // size)
    rows = np.repeat(cell, end - start)
    columns = np.concatenate([np.arange(a, b) for a, b in zip(start, end, strict=True)])
    adaptive = sparse.csr_matrix((1.0 / (end - start)[rows], (rows, columns)), shape=(size, inner))
    return (adaptive @ three).tocsr()
