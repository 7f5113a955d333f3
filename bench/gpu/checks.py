"""Runs the cases on a device: against float64, over poisoned memory, and again on a side stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from cfr_fast.ops import Interpolated, registry

from .cases import Case, cases, run


def moved(item: Any, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Any:
    """Tensors inside tuples on another device, floating-point ones as another dtype."""
    if isinstance(item, Tensor):
        return item.to(device=device, dtype=dtype if item.is_floating_point() else None)
    if isinstance(item, Interpolated):
        return Interpolated(*(moved(part, device, dtype) for part in item))
    if isinstance(item, tuple):
        return tuple(moved(part, device, dtype) for part in item)
    return item


def poison(device: torch.device) -> None:
    """Leave NaN in the memory that the allocator hands out next."""
    blocks = [torch.full((size,), torch.nan, device=device) for size in (64, 4096, 1 << 18, 1 << 20, 1 << 24)]
    del blocks


def side_stream(device: torch.device) -> AbstractContextManager[Any]:
    """A stream that is not the default one, where there are streams."""
    if device.type != "cuda":
        return nullcontext()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return torch.cuda.stream(stream)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def identical(one: Any, other: Any) -> bool:
    """The same bits, NaN included."""
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    return torch.equal(one.nan_to_num(nan=12.5), other.nan_to_num(nan=12.5)) and torch.equal(
        one.isnan(), other.isnan()
    )


def examine(case: Case, device: torch.device) -> str:
    """An empty text, or what is wrong."""
    try:
        there = moved(case.arguments, device)
        poison(device)
        first = run(case, there)
        synchronize(device)
        with side_stream(device):
            again = run(case, there)
        synchronize(device)
        exact = moved(case.arguments, dtype=torch.float64)
        got = moved(first, torch.device("cpu"))
        case.judge(got, run(case, exact), exact)
        if not identical(got, moved(again, torch.device("cpu"))):
            return "the second run gave other bits"
    except Exception as error:  # a failed launch, a wrong number: the next op is still worth looking at
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
    return ""


def kernel_of(op: str, device: torch.device) -> str:
    """What serves an op there: "cuda", "cpu" or "reference"."""
    if device.type == "cuda":
        return "cuda" if registry.has_cuda_kernel(op) else "reference"
    return "cpu" if hasattr(torch.ops.cfr_fast, op) else "reference"


def examine_all(
    device: torch.device, seed: int, few: bool = False, ops: Sequence[str] | None = None
) -> Iterator[dict[str, str]]:
    """One entry a case of these ops, or of all: op, sizes, what serves it, the failure or an empty text."""
    for case in cases(seed, few):
        if ops is not None and case.op not in ops:
            continue
        failure = examine(case, device)
        yield {"op": case.op, "sizes": case.sizes, "kernel": kernel_of(case.op, device), "failure": failure}
