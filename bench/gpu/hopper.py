"""The tiles that only compute capability 9.0 has, beside the portable ones, which CFR_FAST_HOPPER=0 asks for.

On a card of 9.0 they are the default. This checks the portable ones there, which other cards run, and races
both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from .races import Bench, Race, confidence_filter, topk_cosine

OPS = ("topk_cosine", "confidence_filter", "geglu_map", "topk_interpolated", "bank_attention")  # by tiles


def is_there(device: torch.device) -> bool:
    """Whether the device has the instructions."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) == (9, 0)


@contextmanager
def portable() -> Iterator[None]:
    """Kernels launched inside use the portable tiles."""
    before = os.environ.get("CFR_FAST_HOPPER")
    os.environ["CFR_FAST_HOPPER"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CFR_FAST_HOPPER"]
        else:
            os.environ["CFR_FAST_HOPPER"] = before


def races(bench: Bench) -> list[Race]:
    """Both searches with them, against themselves without and the same peers; elsewhere there is no race."""
    if not (bench.tiny or is_there(bench.device)):
        return []
    return [_with_and_without(build(bench)) for build in (topk_cosine, confidence_filter)]


def _with_and_without(race: Race) -> Race:
    def without(*arguments: int) -> object:
        with portable():
            return race.ours(*arguments)

    return replace(race, what=f"{race.what}, Hopper's tiles", peers={"without": without, **race.peers})
