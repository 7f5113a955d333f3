"""Attention of every query over a whole memory bank."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import loader, reference, registry
from cfr_fast.ops.checks import check_matrix, check_same, describe


def bank_attention(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Softmax attention of every query over a whole memory bank; differentiable.

    Native kernels serve float32 on the CPU and on CUDA without the [N, M] matrix (online softmax, Milakov &
    Gimelshein 2018), for any d and Dv. Beside the result that of the CPU holds a packed copy of the bank;
    that of CUDA the sums of several parts of the bank where a whole pass would leave the device idle, at most
    300 MB. The gradient computes the weights anew, in blocks of plain PyTorch. Other dtypes go through plain
    PyTorch.

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
    if query.dtype != torch.float32:
        return reference.bank_attention(query, keys, values, scale)
    loader.ready()
    composed: Tensor = torch.ops.cfr_fast.bank_attention(query, keys, values, scale)
    return composed


def _fake(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    return query.new_empty(query.shape[0], values.shape[1])


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3], output)
    ctx.scale = inputs[3]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    query, keys, values, output = ctx.saved_tensors
    return *reference.bank_attention_backward(grad, query, keys, values, output, ctx.scale), None


registry.OPS.append(
    registry.NativeOp("bank_attention", reference.bank_attention, _fake, _setup_context, _backward)
)
