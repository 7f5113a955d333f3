"""Attention over a memory bank; plain PyTorch serves both forms, with its own gradients."""

from __future__ import annotations

from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import reference
from cfr_fast.ops.checks import check_index, check_matrix, check_same, describe

__all__ = ["bank_attention", "topk_attention"]


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
