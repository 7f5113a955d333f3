"""The tiles that only compute capability 9.0 has, asked for by CFR_FAST_HOPPER=1.

Nothing uses them unasked. Where they are right and faster on a card, they can become the default there.
They run in a process of their own: what has never run on a card may take its process along.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from .races import Bench, Race, confidence_filter, topk_cosine

OPS = ("topk_cosine", "confidence_filter")


def is_there(device: torch.device) -> bool:
    """Whether the device has the instructions."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) == (9, 0)


@contextmanager
def asked() -> Iterator[None]:
    """Kernels launched inside use them."""
    os.environ["CFR_FAST_HOPPER"] = "1"
    try:
        yield
    finally:
        del os.environ["CFR_FAST_HOPPER"]


def races(bench: Bench) -> list[Race]:
    """Both searches with them, against themselves without and the same peers; elsewhere there is no race."""
    if not (bench.tiny or is_there(bench.device)):
        return []
    return [_asked_for(build(bench)) for build in (topk_cosine, confidence_filter)]


def _asked_for(race: Race) -> Race:
    def inside(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: int) -> object:
            with asked():
                return function(*arguments)

        return call

    return replace(
        race,
        what=f"{race.what}, CFR_FAST_HOPPER=1",
        ours=inside(race.ours),
        peers={"without": race.ours, **race.peers},
        same=inside(race.same),
    )
