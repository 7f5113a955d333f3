"""Attention of every query over its own few rows of a memory bank: the retriever's composition."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cfr_fast.ops import loader, reference, registry
from cfr_fast.ops.checks import check_index, check_matrix, check_real_rows, check_same


def topk_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    index: Tensor,
    scale: float,
    count: Tensor | None = None,
) -> Tensor:
    """Softmax attention of every query over its own k rows of a memory bank.

    Differentiable in `query`, `keys` and `values`, once in float32; the gradient adds in a fixed order
    whatever the number of threads. Native kernels serve float32 on the CPU and on CUDA and read the rows
    where they lie; other dtypes go through plain PyTorch, and so does the gradient on CUDA.

    Args:
        query: float [U, d].
        keys: float [M, d], same dtype and device.
        values: float [M, Dv], same dtype and device.
        index: int64 [U, k], rows of the bank, 0 ≤ index < M. CUDA does not check it, as that would cost a
            synchronisation: with a number out of range, the result there is undefined.
        scale: factor on the dot products, d^-0.5 in CFR.
        count: int64 [1], how many queries are real, 0 ≤ count ≤ U; None: all. What stands in `query` and
            `index` behind them is ignored.

    Returns:
        float [U, Dv], Σ_j softmax_j(scale · q · k_j) v_j; zeros where k = 0, and from row `count` on.

    Raises:
        InputError: wrong shape, dtype or device.
        RuntimeError: the count or a number in `index` out of range, on the CPU (IndexError where plain
            PyTorch serves).
    """
    check_matrix("query", query)
    check_matrix("keys", keys, columns=query.shape[1])
    check_matrix("values", values, rows=keys.shape[0])
    check_same("keys", keys, query)
    check_same("values", values, query)
    check_index("index", index, (query.shape[0], None), query)
    check_real_rows(count, query)
    if query.dtype != torch.float32:
        return reference.topk_attention(query, keys, values, index, scale, count)
    loader.ready()
    composed: Tensor = torch.ops.cfr_fast.topk_attention(query, keys, values, index, scale, count)
    return composed


def _fake(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    index: Tensor,
    scale: float,
    count: Tensor | None = None,
) -> Tensor:
    return query.new_empty(query.shape[0], values.shape[1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4], inputs[5])
    ctx.scale = inputs[4]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
    *tensors, count = ctx.saved_tensors
    gradients = torch.ops.cfr_fast.topk_attention_backward(grad, *tensors, ctx.scale, count)
    return *gradients, None, None, None


def _fake_backward(
    grad: Tensor,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    index: Tensor,
    scale: float,
    count: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), keys.new_empty(keys.shape), values.new_empty(values.shape)


def _no_second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError("topk_attention: float32 has no second derivative; use float64")


registry.OPS += [
    registry.NativeOp("topk_attention", reference.topk_attention, _fake, _setup_context, _backward),
    registry.NativeOp(
        "topk_attention_backward",
        reference.topk_attention_backward,
        _fake_backward,
        backward=_no_second_derivative,
        public=False,
    ),
]
