"""The public ops that are served by their reference: checked, typed, documented."""

from __future__ import annotations

import torch
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import reference
from cfr_fast.ops.checks import check_index, check_matrix, check_same, check_valid, describe


def confidence_filter(query: Tensor, bank: Tensor, threshold: float, valid: Tensor | None = None) -> Tensor:
    """Rows whose smallest cosine distance to the bank is at least `threshold` (CFR's confidence filter).

    Args:
        query: float [N, D].
        bank: float [M, D], same dtype and device. An empty bank is infinitely far from everything.
        threshold: θ, a cosine distance; a zero row has distance 1 to everything.
        valid: bool [N]; rows that are False are never returned. None: all rows count.

    Returns:
        int64 [U], ascending.

    Raises:
        InputError: wrong shape, dtype or device; a threshold that is not a number.
    """
    check_matrix("query", query)
    check_matrix("bank", bank, columns=query.shape[1])
    check_same("bank", bank, query)
    if valid is not None:
        check_valid("valid", valid, query.shape[0], query)
    if threshold != threshold:
        raise InputError("threshold", "a cosine distance", "NaN")
    return reference.confidence_filter(query, bank, threshold, valid)


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


def replace_and_score(
    rgb_predicted: Tensor,
    rgb_observed: Tensor,
    xyz_predicted: Tensor,
    xyz_observed: Tensor,
    replacement: Tensor,
    replaced: Tensor,
    valid: Tensor,
) -> Tensor:
    """Replace unreliable predictions and turn both modalities' discrepancies into a map.

    ‖n(R̂) − n(R)‖₂ · ‖n(X̂) − n(X)‖₂ with n the L2 normalisation, zero where invalid, then one 5×5 box
    filter (zero padding, divided by 25). Features come for valid pixels only, one row each in raster order.

    Args:
        rgb_predicted: R̂, float [V, Dr].
        rgb_observed: R, float [V, Dr].
        xyz_predicted: X̂, float [V, Dx].
        xyz_observed: X, float [V, Dx].
        replacement: float [U, Dr], put in place of the rows `replaced` of R̂.
        replaced: int64 [U], distinct rows of R̂, 0 ≤ replaced < V.
        valid: bool [h, w] with V True pixels.

    Returns:
        float [h, w].

    Raises:
        InputError: wrong shape, dtype or device.
    """
    check_matrix("rgb_predicted", rgb_predicted)
    rows, rgb_dim = rgb_predicted.shape
    check_matrix("rgb_observed", rgb_observed, rows=rows, columns=rgb_dim)
    check_matrix("xyz_predicted", xyz_predicted, rows=rows)
    check_matrix("xyz_observed", xyz_observed, rows=rows, columns=xyz_predicted.shape[1])
    check_matrix("replacement", replacement, columns=rgb_dim)
    check_index("replaced", replaced, (replacement.shape[0],), rgb_predicted)
    for name, tensor in (
        ("rgb_observed", rgb_observed),
        ("xyz_predicted", xyz_predicted),
        ("xyz_observed", xyz_observed),
        ("replacement", replacement),
    ):
        check_same(name, tensor, rgb_predicted)
    if valid.dtype != torch.bool or valid.dim() != 2 or int(valid.sum()) != rows:
        raise InputError("valid", f"bool [h, w] with {rows} True pixels", describe(valid))
    check_same("valid", valid, rgb_predicted, dtype=False)
    return reference.replace_and_score(
        rgb_predicted, rgb_observed, xyz_predicted, xyz_observed, replacement, replaced, valid
    )


__all__ = [
    "bank_attention",
    "confidence_filter",
    "replace_and_score",
    "topk_attention",
]
