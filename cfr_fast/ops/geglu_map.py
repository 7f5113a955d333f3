"""A GeGLU mapper in token space: its first layer commutes with the interpolation of tokens to pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import loader, reference, registry
from cfr_fast.ops.checks import check_matrix, check_real_rows, check_same, describe
from cfr_fast.ops.interpolated import Interpolated


def geglu_map(
    projected: Interpolated,
    bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    count: Tensor | None = None,
) -> Tensor:
    """Map pixels whose tokens have been through the mapper's first weight matrix.

    W3 (GELU(gate) ⊙ value) + b3 with [gate, value] = Σ_j weight[j] · (W12 token_j) + b12 (Shazeer 2020, exact
    GELU). Weights need not sum to one, so the bias comes after them. A native kernel serves float32, holding
    the hidden layer of some pixels at a time and without a gradient; other dtypes go through plain PyTorch.

    Args:
        projected: pixels over the projected tokens W12 token, float [T, 2H], gate first.
        bias: b12, float [2H].
        out_weight: W3, float [D, H].
        out_bias: b3, float [D].
        count: int64 [1], how many pixels are real, 0 ≤ count ≤ P; None: all.

    Returns:
        float [P, D]; zeros from row `count` on.

    Raises:
        InputError: wrong shape, dtype or device.
        RuntimeError: a source or the count out of range, or offsets that do not ascend (looked at on the CPU
            alone).
    """
    projected.check("projected")
    check_matrix("out_weight", out_weight)
    outputs, hidden = out_weight.shape
    check_matrix("projected.tokens", projected.tokens, columns=2 * hidden)
    for name, tensor, size in (("bias", bias, 2 * hidden), ("out_bias", out_bias, outputs)):
        if tensor.shape != (size,):
            raise InputError(name, f"shape [{size}]", describe(tensor))
        check_same(name, tensor, projected.tokens)
    check_same("out_weight", out_weight, projected.tokens)
    check_real_rows(count, projected.tokens)
    if projected.tokens.dtype != torch.float32:
        return reference.geglu_map(*projected, bias, out_weight, out_bias, count)
    loader.ready()
    tensors = (*projected, bias, out_weight, out_bias)
    mapped: Tensor = torch.ops.cfr_fast.geglu_map(*(tensor.detach() for tensor in tensors), count)
    return mapped


def _fake(
    projected: Tensor,
    offset: Tensor,
    source: Tensor,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    count: Tensor | None = None,
) -> Tensor:
    return projected.new_empty(offset.shape[0] - 1, out_weight.shape[0])


registry.OPS.append(registry.NativeOp("geglu_map", reference.geglu_map, _fake))
