"""From point groups to pixels: three-nearest interpolation and both averages as one sparse operator."""

from __future__ import annotations

import torch
from torch import Tensor

from cfr_fast.extractors.field import FeatureField
from cfr_fast.ops import three_nn

BLOCK = 1 << 19  # elements of the largest matrix of expanded distances: in cache on a CPU,
DEVICE_BLOCK = 1 << 24  # and few launches on a device


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
    step = max(1, (DEVICE_BLOCK if points.is_cuda else BLOCK) // max(1, count))
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
    `adaptive_avg_pool2d`). All of that is linear in the tokens, and is composed into one operator, without
    leaving the device and with sums in a fixed order.

    Args:
        tokens: float [G, D], features of the groups.
        index: int64 [n, 3], groups of every measured point, points in raster order.
        weight: float [n, 3], their weights.
        measured: bool [h, w] with n True pixels; h and w at least 3.

    Returns:
        FeatureField of h×w pixels, valid wherever a measured point lies in the averaged neighbourhood.
    """
    height, width = measured.shape
    flat = measured.reshape(-1)
    point = torch.where(flat, flat.cumsum(0) - 1, -1)
    near, share = _pooled(height, width, measured.device)
    point = point[near]
    share = torch.where(point >= 0, share, 0)
    valid = (share > 0).any(dim=1)
    row = valid.nonzero()[:, 0]
    point, share = point[row].clamp(min=0), share[row, :, None]
    nothing = tokens.shape[0]  # a group behind all others, for what takes no part
    group = torch.where(share > 0, index[point], nothing).flatten(1).to(torch.int32)
    source, total = _summed(group, (share * weight[point]).flatten(1))
    last = source < nothing
    last[:, :-1] &= source[:, 1:] != source[:, :-1]
    offset = torch.zeros(flat.numel() + 1, dtype=torch.int64, device=measured.device)
    offset[row + 1] = last.sum(dim=1)
    source, total = source[last].long(), total[last].to(tokens)
    return FeatureField(tokens, offset.cumsum(0), source, total, valid, (height, width))


def _summed(group: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [P, E] ordered by group; the last entry of a group holds the sum of its weights in that row."""
    group, order = group.sort(dim=1, stable=True)
    weight = weight.gather(1, order)
    step = 1
    while step < group.shape[1]:  # sums over the last 2, 4, 8, … entries, as far as they are of one group
        same = group[:, step:] == group[:, :-step]
        weight = torch.cat([weight[:, :step], weight[:, step:] + weight[:, :-step] * same], dim=1)
        step *= 2
    return group, weight


def _pooled(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The up to sixteen pixels that both averages make a pixel of, and their shares: [P, 16] each."""
    (y, in_y), (x, in_x) = (_axis(size, device) for size in (height, width))
    near = y[:, None, :, None] * width + x[None, :, None, :]
    share = in_y[:, None, :, None] * in_x[None, :, None, :]
    return near.reshape(-1, 16), share.reshape(-1, 16)


def _axis(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The same along one axis, [size, 4]: the mean of three, size → size − 2, then the adaptive mean back.

    An adaptive cell spans one or two means.
    """
    inner, cell = size - 2, torch.arange(size, device=device)
    first, end = cell * inner // size, -((-(cell + 1) * inner) // size)
    share = torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0], [1 / 6, 1 / 3, 1 / 3, 1 / 6]], device=device)
    near = first[:, None] + torch.arange(4, device=device)
    return near.clamp(max=size - 1), share[end - first - 1]
