"""Top-k cosine of pixels in token space: similarities commute with the interpolation of tokens to pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from cfr_fast.ops import loader, reference, registry
from cfr_fast.ops.checks import check_count, check_matrix, check_same
from cfr_fast.ops.interpolated import Interpolated, check_list
from cfr_fast.ops.topk_cosine import NATIVE_K


def topk_interpolated(
    query: Interpolated, keys: Tensor, k: int, rows: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    """The k keys of highest cosine similarity to every pixel, from products of tokens and keys alone.

    A native kernel serves float32 with k ≤ 32, without forming the [P, M] or [T, M] matrix; other dtypes and
    longer lists go through plain PyTorch.

    Args:
        query: P pixels over tokens [T, D]; nothing needs normalisation.
        keys: float [M, D], same dtype and device.
        k: 0 ≤ k ≤ M.
        rows: int64 [R], the pixels that are asked for, 0 ≤ rows < P; None: all.
        count: int64 [1], how many of them are real, 0 ≤ count ≤ R; None: all. What stands in `rows` behind
            them is ignored.

    Returns:
        int64 [P, k], or [R, k] where rows are listed: rows of `keys`, the most similar first; equal
        similarities in ascending order of row. Zeros from row `count` on.

    Raises:
        InputError: wrong shape, dtype or device; `k` out of range.
        RuntimeError: a source, a listed row or the count out of range, or offsets that do not ascend (looked
            at on the CPU alone).
    """
    query.check("query")
    check_matrix("keys", keys, columns=query.tokens.shape[1])
    check_same("keys", keys, query.tokens)
    check_count("k", k, 0, keys.shape[0], "a number of keys")
    check_list(query, rows, count)
    if query.tokens.dtype != torch.float32 or k > NATIVE_K:
        return reference.topk_interpolated(*query, keys, k, rows, count)
    loader.ready()
    tensors = (*query, keys)
    found: Tensor = torch.ops.cfr_fast.topk_interpolated(*(t.detach() for t in tensors), k, rows, count)
    return found


def _fake(
    tokens: Tensor,
    offset: Tensor,
    source: Tensor,
    weight: Tensor,
    keys: Tensor,
    k: int,
    rows: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    return source.new_empty(offset.shape[0] - 1 if rows is None else rows.shape[0], k)


registry.OPS.append(registry.NativeOp("topk_interpolated", reference.topk_interpolated, _fake))
