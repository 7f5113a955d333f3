"""Argument checks that every op shares: each failure names the argument, what was expected and what came."""

from __future__ import annotations

import torch
from torch import Tensor

from cfr_fast.errors import InputError


def describe(tensor: Tensor) -> str:
    """Dtype, shape and device of a tensor, for error messages."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{dtype} of shape {list(tensor.shape)} on {tensor.device}"


def check_matrix(name: str, tensor: Tensor, columns: int | None = None, rows: int | None = None) -> None:
    """Raise InputError unless `tensor` is a floating-point matrix of the given size."""
    wanted = (
        f"a floating-point matrix [{'N' if rows is None else rows}, {'D' if columns is None else columns}]"
    )
    if not isinstance(tensor, Tensor):
        raise InputError(name, wanted, type(tensor).__name__)
    fits = tensor.dim() == 2 and tensor.is_floating_point()
    fits = fits and columns in (None, tensor.shape[-1]) and rows in (None, tensor.shape[0])
    if not fits:
        raise InputError(name, wanted, describe(tensor))


def check_index(name: str, tensor: Tensor, shape: tuple[int | None, ...], like: Tensor) -> None:
    """Raise InputError unless `tensor` is int64 of `shape` (None: any size) on the device of `like`."""
    fits = isinstance(tensor, Tensor) and tensor.dtype == torch.int64 and tensor.dim() == len(shape)
    fits = fits and all(want in (None, have) for want, have in zip(shape, tensor.shape, strict=True))
    if not fits:
        sizes = ", ".join("·" if size is None else str(size) for size in shape)
        got = describe(tensor) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InputError(name, f"int64 of shape [{sizes}]", got)
    check_same(name, tensor, like, dtype=False)


def check_same(name: str, tensor: Tensor, like: Tensor, dtype: bool = True) -> None:
    """Raise InputError unless `tensor` shares device (and dtype) with `like`."""
    if tensor.device != like.device:
        raise InputError(name, f"a tensor on {like.device}", describe(tensor))
    if dtype and tensor.dtype != like.dtype:
        raise InputError(name, f"dtype {str(like.dtype).removeprefix('torch.')}", describe(tensor))


def check_valid(name: str, tensor: Tensor, rows: int, like: Tensor) -> None:
    """Raise InputError unless `tensor` is a bool vector of `rows` elements beside `like`."""
    if not isinstance(tensor, Tensor) or tensor.dtype != torch.bool or tensor.shape != (rows,):
        got = describe(tensor) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InputError(name, f"bool of shape [{rows}]", got)
    check_same(name, tensor, like, dtype=False)


def check_real_rows(tensor: Tensor | None, like: Tensor) -> None:
    """Raise InputError unless `count`, the number of real rows, is None or int64 [1] beside `like`."""
    if tensor is not None:
        check_index("count", tensor, (1,), like)


def check_count(name: str, value: int, low: int, high: int, meaning: str) -> None:
    """Raise InputError unless low ≤ value ≤ high."""
    if not low <= value <= high:
        raise InputError(name, f"{meaning} between {low} and {high}", str(value))
