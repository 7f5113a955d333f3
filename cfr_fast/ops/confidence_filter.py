"""CFR's confidence filter: which rows lie far from every row of a memory bank."""

from __future__ import annotations

import torch
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import loader, reference, registry
from cfr_fast.ops.checks import check_matrix, check_same, check_valid


def confidence_filter(query: Tensor, bank: Tensor, threshold: float, valid: Tensor | None = None) -> Tensor:
    """Rows whose smallest cosine distance to the bank is at least `threshold` (CFR's confidence filter).

    A native kernel serves float32: a row leaves as soon as one bank row is near enough, and bounds spare most
    comparisons of the others; the answer is that of the exhaustive search. On CUDA the call waits for the
    device, since the number of rows is the size of the result. Other dtypes go through plain PyTorch in
    blocks. No gradient.

    Args:
        query: float [N, D]; rows need no normalisation.
        bank: float [M, D], same dtype and device. An empty bank is infinitely far from everything.
        threshold: θ, a cosine distance; a zero row has distance 1 to everything.
        valid: bool [N]; rows that are False are never returned. None: all rows count.

    Returns:
        int64 [U], ascending. A distance that is not a number counts as near.

    Raises:
        InputError: wrong shape, dtype or device; a threshold that is not a number.
    """
    _check(query, bank, threshold, valid)
    if query.dtype != torch.float32:
        return reference.confidence_filter(query, bank, threshold, valid)
    loader.ready()
    rows: Tensor = torch.ops.cfr_fast.confidence_filter(query.detach(), bank.detach(), threshold, valid)
    return rows


def confidence_filter_padded(
    query: Tensor, bank: Tensor, threshold: float, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same rows in a list that has one size whatever the data: no device has to be waited for.

    Args:
        query, bank, threshold, valid: as for `confidence_filter`.

    Returns:
        index: int64 [N], ascending up to row `count`, zeros behind.
        count: int64 [1], U.

    Raises:
        InputError: wrong shape, dtype or device; a threshold that is not a number.
    """
    _check(query, bank, threshold, valid)
    if query.dtype != torch.float32:
        return reference.confidence_filter_padded(query, bank, threshold, valid)
    loader.ready()
    tensors = query.detach(), bank.detach()
    index, count = torch.ops.cfr_fast.confidence_filter_padded(*tensors, threshold, valid)
    return index, count


def _check(query: Tensor, bank: Tensor, threshold: float, valid: Tensor | None) -> None:
    check_matrix("query", query)
    check_matrix("bank", bank, columns=query.shape[1])
    check_same("bank", bank, query)
    if valid is not None:
        check_valid("valid", valid, query.shape[0], query)
    if threshold != threshold:
        raise InputError("threshold", "a cosine distance", "NaN")


def _fake(query: Tensor, bank: Tensor, threshold: float, valid: Tensor | None = None) -> Tensor:
    count = torch.library.get_ctx().new_dynamic_size()
    return query.new_empty(count, dtype=torch.int64)


def _fake_padded(
    query: Tensor, bank: Tensor, threshold: float, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape[0], dtype=torch.int64), query.new_empty(1, dtype=torch.int64)


registry.OPS += [
    registry.NativeOp("confidence_filter", reference.confidence_filter, _fake),
    registry.NativeOp("confidence_filter_padded", reference.confidence_filter_padded, _fake_padded),
]
