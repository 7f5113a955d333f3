"""The arithmetic that frozen networks run in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def precision(device: torch.device, autocast: bool) -> Iterator[None]:
    """On CUDA bfloat16 where that is asked for and safe; else float32 all through.

    torch lets convolutions on CUDA round their inputs to TF32 unless told otherwise: features would then
    differ in the third digit from those of a processor.
    """
    if device.type != "cuda":
        yield
    elif autocast:
        with torch.autocast(device.type, torch.bfloat16):
            yield
    else:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
