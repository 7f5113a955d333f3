"""Features of cells: the mean of the pixels in each square of a coarser grid."""

from __future__ import annotations

import torch
from torch import Tensor

from cfr_fast.lesson import PixelFeatures
from cfr_fast.ops import Interpolated

LEAST = 30  # percent of a cell that valid pixels cover, below which its mean says too little


def pooled(view: PixelFeatures, side: int) -> PixelFeatures:
    """The view on a grid of side×side cells.

    A cell's feature is the mean over its valid pixels; cells that these cover by less than 30 % are left out,
    unless no cell has more: then all that have any are kept.

    Args:
        view: on size×size pixels, of which V are valid. Features of invalid pixels are ignored.
        side: cells per row, at most size.

    Returns:
        A view of [side, side] "pixels", its features dense: float [C, Dr] and [C, Dx] for C cells.
    """
    view = view.without_background()
    cell = cell_of_pixels(view.valid, side)
    count = torch.bincount(cell, minlength=side * side)
    area = torch.bincount(cell_of_pixels(torch.ones_like(view.valid), side), minlength=side * side)
    kept = (100 * count >= LEAST * area) & (count > 0)
    if not bool(kept.any()):
        kept = count > 0
    order = cell.argsort(stable=True)
    ends = torch.cat([count.new_zeros(1), count.cumsum(0)])
    weight = (1 / count.clamp(min=1))[cell[order]].to(view.rgb.tokens.dtype)
    rows = kept.nonzero()[:, 0]

    def mean(features: Interpolated) -> Interpolated:
        means = Interpolated(features.dense(), ends, order, weight)
        return Interpolated.of(means.dense(rows))

    return PixelFeatures(mean(view.rgb), mean(view.xyz), kept.reshape(side, side))


def cell_of_pixels(valid: Tensor, side: int) -> Tensor:
    """The cell that each of V valid pixels lies in: bool [size, size] → int64 [V], from 0 to side² − 1."""
    size = valid.shape[0]
    flat = valid.reshape(-1).nonzero()[:, 0]
    steps = torch.arange(size, device=flat.device) * side // size
    return steps[flat // size] * side + steps[flat % size]


def spread(values: Tensor, valid: Tensor, size: int, sigma: float) -> Tensor:
    """Values of cells as a map on size×size pixels, smoothed, reaching a little beyond the cells.

    Args:
        values: float [C], not negative.
        valid: bool [side, side] with C True cells, in raster order.
        size: of the map.
        sigma: of the Gaussian, in cells.

    Returns:
        float [size, size]; zero from about one cell beyond the valid ones.
    """
    grid = torch.zeros(valid.shape, dtype=values.dtype, device=values.device)
    grid[valid] = values
    if sigma > 0:
        reach = max(1, round(3 * sigma))
        axis = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
        kernel = torch.exp(-axis.square() / (2 * sigma**2))
        kernel = kernel / kernel.sum()
        for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
            padding = (reach, 0) if shape[2] == -1 else (0, reach)
            grid = torch.nn.functional.conv2d(grid[None, None], kernel.reshape(shape), padding=padding)[0, 0]
    wide = torch.nn.functional.interpolate(grid[None, None], (size, size), mode="bilinear")
    return wide[0, 0]
