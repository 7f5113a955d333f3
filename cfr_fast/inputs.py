"""What callers may give for a sample or a device, turned into samples and devices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from cfr_fast.data import Sample, SampleSource, find_samples
from cfr_fast.errors import InputError

SampleLike: TypeAlias = Sample | SampleSource | str | Path | tuple[NDArray[np.uint8], NDArray[np.float32]]


def device_of(name: str) -> torch.device:
    """``auto`` takes CUDA where there is one.

    Raises:
        InputError: not a device of this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            "device", "auto, cpu, or a device of this machine", f"{name!r} ({reason})"
        ) from error
    return device


def samples_of(given: SampleLike | Iterable[SampleLike]) -> Iterator[Sample]:
    """Whatever stands for samples, loaded one by one.

    Raises:
        InputError: something that does not stand for a sample.
    """
    if isinstance(given, Sample):
        yield given
    elif isinstance(given, SampleSource):
        yield given.load()
    elif isinstance(given, str | Path):
        for source in find_samples([given]):
            yield source.load()
    elif isinstance(given, tuple) and len(given) == 2 and all(isinstance(a, np.ndarray) for a in given):
        yield Sample(*given)
    elif isinstance(given, Iterable) and not isinstance(given, np.ndarray):
        for item in given:
            yield from samples_of(item)
    else:
        raise InputError(
            "sample", "a Sample, a SampleSource, (rgb, xyz) arrays or a path", type(given).__name__
        )


def normal_samples(shots: list[Sample]) -> list[Sample]:
    """The same samples.

    Raises:
        InputError: none, or one that is known to be anomalous.
    """
    if not shots:
        raise InputError("samples", "at least one normal sample", "none")
    for shot in shots:
        if shot.is_anomalous:
            raise InputError("samples", "normal samples only", f"{shot.name!r} with a defect")
    return shots
