"""Top-k cosine similarity: the candidates of the retriever and the nearest rows of a memory bank."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cfr_fast.errors import InputError
from cfr_fast.ops import loader, reference, registry
from cfr_fast.ops.checks import check_count, check_matrix, check_same

NATIVE_K = 32  # longest list that the kernels keep
PRECISIONS = ("bf16", "tf32")
EPS = 1e-12  # smallest norm to divide by, as in torch.nn.functional.normalize


def topk_cosine(query: Tensor, keys: Tensor, k: int, *, precision: str = "bf16") -> tuple[Tensor, Tensor]:
    """The k keys of highest cosine similarity to every query; differentiable in `query` and `keys`.

    Native kernels serve float32 with k ≤ 32 without forming the [N, M] matrix; other dtypes and longer lists
    go through plain PyTorch in blocks.

    Args:
        query: float [N, D]; rows need no normalisation.
        keys: float [M, D], same dtype and device.
        k: 0 ≤ k ≤ M.
        precision: "bf16" or "tf32", of the tensor-core products that choose candidates on CUDA; elsewhere
            without effect. A matter of speed alone, the answer is the same: "tf32" multiplies at half the
            rate, but with an eighth of the rounding, so fewer rows with nearly equal keys have to be searched
            exhaustively.

    Returns:
        similarity: float [N, k], descending; a zero row has similarity 0 with everything.
        index: int64 [N, k], rows of `keys`; equal similarities in ascending order of row.

    Raises:
        InputError: wrong shape, dtype or device; `k` out of range; an unknown `precision`.
    """
    check_matrix("query", query)
    check_matrix("keys", keys, columns=query.shape[1])
    check_same("keys", keys, query)
    check_count("k", k, 0, keys.shape[0], "a number of keys")
    if precision not in PRECISIONS:
        raise InputError("precision", " or ".join(PRECISIONS), str(precision))
    if query.dtype != torch.float32 or k > NATIVE_K:
        return reference.topk_cosine(query, keys, k)
    loader.ready()
    similarity, index = torch.ops.cfr_fast.topk_cosine(query, keys, k, precision)
    return similarity, index


def _fake(query: Tensor, keys: Tensor, k: int, precision: str = "bf16") -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], k)
    return query.new_empty(shape), query.new_empty(shape, dtype=torch.int64)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, str], output: tuple[Tensor, Tensor]) -> None:
    query, keys, *_ = inputs
    _, index = output
    ctx.mark_non_differentiable(index)
    ctx.save_for_backward(query, keys, index)


def _through_normalisation(grad: Tensor, rows: Tensor) -> Tensor:
    """Gradient with respect to `rows` from the one with respect to their L2-normalised form."""
    norm = rows.norm(dim=1, keepdim=True)
    unit = rows / norm.clamp_min(EPS)
    # Scaling a row changes nothing, so the radial part goes, unless the clamp holds the norm.
    radial = torch.where(norm > EPS, (grad * unit).sum(dim=1, keepdim=True), 0) * unit
    tangential: Tensor = (grad - radial) / norm.clamp_min(EPS)
    return tangential


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
    query, keys, index = ctx.saved_tensors
    unit_query, unit_keys = normalize(query, dim=1), normalize(keys, dim=1)
    grad_query = grad_keys = None
    if ctx.needs_input_grad[0]:
        grad_unit = torch.einsum("nk,nkd->nd", grad, unit_keys[index])
        grad_query = _through_normalisation(grad_unit, query)
    if ctx.needs_input_grad[1]:
        parts = grad[:, :, None] * unit_query[:, None, :]
        grad_unit = torch.zeros_like(keys).index_add(0, index.flatten(), parts.flatten(0, 1))
        grad_keys = _through_normalisation(grad_unit, keys)
    return grad_query, grad_keys, None, None


registry.OPS.append(registry.NativeOp("topk_cosine", reference.topk_cosine, _fake, _setup_context, _backward))
