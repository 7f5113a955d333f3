"""From point groups to pixels: three-nearest interpolation and both averages as one sparse operator."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from cfr_fast.extractors.field import FeatureField


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
