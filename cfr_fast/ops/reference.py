"""Every op in plain PyTorch: any floating dtype, any device; the definition of what is right.

Arguments are checked by the public functions; what is here computes. Work goes in blocks of rows so that
no N×M matrix larger than `BLOCK` elements exists.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import avg_pool2d, embedding, embedding_bag, gelu, linear, normalize

BLOCK = 1 << 24  # elements of the largest temporary matrix


def _blocks(rows: int, columns: int) -> list[tuple[int, int]]:
    step = max(1, BLOCK // max(1, columns))
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def topk_cosine(query: Tensor, keys: Tensor, k: int, precision: str = "bf16") -> tuple[Tensor, Tensor]:
    """Cosine of the k most similar keys, descending, and their rows; ties go to the lower row.

    `precision` is of CUDA kernels alone.
    """
    unit_query, unit_keys = normalize(query, dim=1), normalize(keys, dim=1)
    similarity = query.new_empty(query.shape[0], k)
    index = torch.empty(query.shape[0], k, dtype=torch.int64, device=query.device)
    if k == 0:
        return similarity, index
    for start, stop in _blocks(query.shape[0], keys.shape[0]):
        product = unit_query[start:stop] @ unit_keys.T
        if k <= 8:  # argmax promises the first of equal maxima
            for column in range(k):
                best, row = product.max(dim=1)
                similarity[start:stop, column], index[start:stop, column] = best, row
                product.scatter_(1, row[:, None], -torch.inf)
        else:
            ordered, rows = product.sort(dim=1, descending=True, stable=True)
            similarity[start:stop], index[start:stop] = ordered[:, :k], rows[:, :k]
    return similarity, index


def real_rows(rows: int, count: Tensor | None, like: Tensor) -> Tensor:
    """Which of the rows are real, bool [rows]: the first `count` (None: all)."""
    number = torch.arange(rows, device=like.device)
    return number >= 0 if count is None else number < count


def _without_others(matrix: Tensor, count: Tensor | None) -> Tensor:
    """Zeros in all rows but the first `count`."""
    if count is None:
        return matrix
    return torch.where(real_rows(matrix.shape[0], count, matrix)[:, None], matrix, 0)


def interpolate_tokens(
    tokens: Tensor,
    offset: Tensor,
    source: Tensor,
    weight: Tensor,
    rows: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """Σ_j weight[j] · tokens[source[j]] for every pixel, or for the listed ones."""
    ends = torch.cat([offset, offset.new_full((1,), source.shape[0])])  # entries of no pixel: a last row
    dense = embedding_bag(
        source, tokens, ends, mode="sum", per_sample_weights=weight, include_last_offset=True
    )[:-1]
    if rows is not None:
        listed = torch.where(real_rows(rows.shape[0], count, rows), rows, dense.shape[0])
        return torch.cat([dense, dense.new_zeros(1, dense.shape[1])])[listed]
    return _without_others(dense, count)


def geglu_map(
    projected: Tensor,
    offset: Tensor,
    source: Tensor,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    count: Tensor | None = None,
) -> Tensor:
    """GeGLU mapper of pixels whose tokens are projected already."""
    gate, value = (interpolate_tokens(projected, offset, source, weight) + bias).chunk(2, dim=1)
    return _without_others(linear(gelu(gate) * value, out_weight, out_bias), count)


def topk_interpolated(
    tokens: Tensor,
    offset: Tensor,
    source: Tensor,
    weight: Tensor,
    keys: Tensor,
    k: int,
    rows: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """Rows of the k keys most similar to every pixel, most similar first; ties go to the lower row."""
    dense = interpolate_tokens(tokens, offset, source, weight, rows, count)
    return _without_others(topk_cosine(dense, keys, k)[1], count)


def farthest_point_sample(points: Tensor, count: int, initial_distance: Tensor | None = None) -> Tensor:
    """Greedy k-center: always the row farthest from all rows picked so far."""
    index = torch.empty(count, dtype=torch.int64, device=points.device)
    if count == 0:
        return index
    if initial_distance is None:
        anchor = points.new_full(points.shape[:1], torch.inf)
        pick = torch.zeros((), dtype=torch.int64, device=points.device)
    else:
        anchor = initial_distance.square()
        pick = anchor.argmax()
    for step in range(count):
        index[step] = pick
        anchor = torch.minimum(anchor, (points - points[pick]).square().sum(dim=1))
        pick = anchor.argmax()
    return index


def squared_distances(points: Tensor, centers: Tensor) -> Tensor:
    """Exact-difference squared distances [G, N] of `centers` [G, 3] to `points` [N, 3]."""
    return (centers[:, None, :] - points[None, :, :]).square().sum(dim=2)


def knn(points: Tensor, centers: Tensor, k: int) -> Tensor:
    """The k points nearest to every centre, nearest first; ties go to the lower row."""
    index = torch.empty(centers.shape[0], k, dtype=torch.int64, device=points.device)
    for start, stop in _blocks(centers.shape[0], 3 * points.shape[0]):
        order = squared_distances(points, centers[start:stop]).argsort(dim=1, stable=True)
        index[start:stop] = order[:, :k]
    return index


def three_nn(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The three centres nearest to every point and their weights 1 / (d² + 1e-8), summing to one."""
    index = torch.empty(points.shape[0], 3, dtype=torch.int64, device=points.device)
    weight = points.new_empty(points.shape[0], 3)
    for start, stop in _blocks(points.shape[0], 3 * centers.shape[0]):
        squared = squared_distances(centers, points[start:stop])
        inverse = torch.empty_like(weight[start:stop])
        for column in range(3):  # argmin promises the first of equal minima
            nearest, row = squared.min(dim=1)
            index[start:stop, column], inverse[:, column] = row, 1 / (nearest + 1e-8)
            squared.scatter_(1, row[:, None], torch.inf)
        weight[start:stop] = inverse / inverse.sum(dim=1, keepdim=True)
    return index, weight


def confidence_filter(query: Tensor, bank: Tensor, threshold: float, valid: Tensor | None = None) -> Tensor:
    """Rows (ascending) that are valid and no closer than `threshold` to the bank in cosine distance."""
    return _far(query, bank, threshold, valid).nonzero()[:, 0]


def confidence_filter_padded(
    query: Tensor, bank: Tensor, threshold: float, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same rows with zeros behind them, and their number."""
    far = _far(query, bank, threshold, valid)
    count = far.sum()[None]
    index = (~far).to(torch.uint8).argsort(stable=True)
    return torch.where(real_rows(query.shape[0], count, query), index, 0), count


def _far(query: Tensor, bank: Tensor, threshold: float, valid: Tensor | None) -> Tensor:
    far = torch.ones(query.shape[0], dtype=torch.bool, device=query.device) if valid is None else valid
    if bank.shape[0] == 0:
        return far
    unit_query, unit_bank = normalize(query, dim=1), normalize(bank, dim=1)
    kept = [
        1 - (unit_query[start:stop] @ unit_bank.T).amax(dim=1) >= threshold
        for start, stop in _blocks(unit_query.shape[0], bank.shape[0])
    ]
    return far & torch.cat(kept) if kept else far


def topk_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    index: Tensor,
    scale: float,
    count: Tensor | None = None,
) -> Tensor:
    """Softmax attention of every query over its own k rows of the bank."""
    query, index = _without_others(query, count), _without_others(index, count)
    # embedding's gradient adds rows in a fixed order; that of plain indexing does not, on several threads.
    logits = torch.einsum("ud,ukd->uk", query, embedding(index, keys)) * scale
    composed = torch.einsum("uk,ukv->uv", logits.softmax(dim=1), embedding(index, values))
    return _without_others(composed, count)


def topk_attention_backward(
    grad: Tensor,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    index: Tensor,
    scale: float,
    count: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of topk_attention with respect to query, keys and values."""
    grad, query, index = (_without_others(each, count) for each in (grad, query, index))
    own_keys, own_values = embedding(index, keys), embedding(index, values)
    weight = (torch.einsum("ud,ukd->uk", query, own_keys) * scale).softmax(dim=1)
    slope = torch.einsum("uv,ukv->uk", grad, own_values)
    slope = scale * weight * (slope - (weight * slope).sum(dim=1, keepdim=True))
    grad_query = torch.einsum("uk,ukd->ud", slope, own_keys)

    def gathered(factor: Tensor, rows: Tensor, like: Tensor) -> Tensor:
        parts = factor[:, :, None] * rows[:, None, :]
        rows_of_bank: Tensor = torch.ops.aten.embedding_dense_backward(parts, index, like.shape[0], -1, False)
        return rows_of_bank

    return grad_query, gathered(slope, query, keys), gathered(weight, grad, values)


def bank_attention(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Softmax attention of every query over the whole bank."""
    parts = [
        (query[start:stop] @ keys.T * scale).softmax(dim=1) @ values
        for start, stop in _blocks(query.shape[0], keys.shape[0]) or [(0, 0)]  # no rows have a gradient too
    ]
    return torch.cat(parts)


def bank_attention_backward(
    grad: Tensor, query: Tensor, keys: Tensor, values: Tensor, output: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of bank_attention, whose result is `output`, with respect to query, keys and values."""
    grad_query, grad_keys, grad_values = [], torch.zeros_like(keys), torch.zeros_like(values)
    mean = (grad * output).sum(dim=1, keepdim=True)
    # Several passes follow each other over the same block: 8 MB of it stay in cache.
    for start, stop in _blocks(query.shape[0], 8 * keys.shape[0]) or [(0, 0)]:
        own, own_grad = scale * query[start:stop], grad[start:stop]
        weight = (own @ keys.T).softmax(dim=1)
        slope = weight * torch.addmm(-mean[start:stop], own_grad, values.T)
        grad_query.append(scale * (slope @ keys))
        grad_keys = grad_keys + slope.T @ own
        grad_values = grad_values + weight.T @ own_grad
    return torch.cat(grad_query), grad_keys, grad_values


def replace_and_score(
    rgb_predicted: Tensor,
    rgb_observed: Tensor,
    xyz_predicted: Tensor,
    xyz_observed: Tensor,
    replacement: Tensor,
    replaced: Tensor,
    valid: Tensor,
    count: Tensor | None = None,
) -> Tensor:
    """Product of both discrepancies after replacement, zero where invalid, box-filtered 5×5."""
    if count is None:
        rgb_predicted = rgb_predicted.index_copy(0, replaced, replacement)
    else:  # the others go to a row of their own
        target = torch.where(real_rows(replaced.shape[0], count, valid), replaced, rgb_predicted.shape[0])
        longer = torch.cat([rgb_predicted, rgb_predicted.new_zeros(1, rgb_predicted.shape[1])])
        rgb_predicted = longer.index_copy(0, target, replacement)[:-1]
    rgb = vector_norm(normalize(rgb_predicted, dim=1) - normalize(rgb_observed, dim=1), dim=1)
    xyz = vector_norm(normalize(xyz_predicted, dim=1) - normalize(xyz_observed, dim=1), dim=1)
    product = torch.zeros(valid.shape, dtype=rgb.dtype, device=rgb.device)
    product.masked_scatter_(valid, rgb * xyz)  # in raster order; rows behind the last stay unused
    if product.numel() == 0:
        return product
    planes = product.reshape(-1, 1, *product.shape[-2:])
    filtered: Tensor = avg_pool2d(planes, kernel_size=5, stride=1, padding=2)
    return filtered.reshape(product.shape)
