"""Which training samples a few-shot model learns from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cfr_fast.data.sample import SampleSource
from cfr_fast.errors import InputError

RULES = ("rng42", "first-k")


def choose_shots(n: int, shots: int, seed: int = 42, rule: str | Sequence[int] = "rng42") -> list[int]:
    """Choose `shots` of the n sorted training samples.

    Args:
        n: number of samples to choose from.
        shots: how many to choose, 1 to n.
        seed: of the draw; 42 is the paper's.
        rule: ``rng42`` draws as the paper does, ``numpy.random.default_rng(seed).choice(n, shots,
            replace=False)``; ``first-k`` takes the first ones; a sequence of indices is taken as it is.

    Returns:
        Indices in ascending order.

    Raises:
        InputError: no shots, more shots than samples, an unknown rule, or indices that are out of range,
            repeated, or not `shots` many.
    """
    if shots < 1:
        raise InputError("shots", "at least 1", f"{shots}")
    if shots > n:
        raise InputError("shots", f"at most {n}, the number of training samples", f"{shots}")
    if not isinstance(rule, str):
        chosen = sorted(int(index) for index in rule)
        if len(set(chosen)) != shots or len(chosen) != shots:
            raise InputError("rule", f"{shots} different indices, one for each shot", f"{chosen}")
        if chosen[0] < 0 or chosen[-1] >= n:
            raise InputError("rule", f"indices from 0 to {n - 1}", f"{chosen}")
        return chosen
    if rule == "first-k":
        return list(range(shots))
    if rule == "rng42":
        drawn = np.random.default_rng(seed).choice(n, shots, replace=False)
        return sorted(int(index) for index in drawn)
    raise InputError("rule", " or ".join(RULES) + " or a list of indices", repr(rule))


def indices_of(sources: Sequence[SampleSource], names: Sequence[str]) -> list[int]:
    """Where the samples called `names` stand in `sources`, to be used as a rule of `choose_shots`.

    Args:
        sources: training samples.
        names: whole names (``train/good/019``) or their last parts (``019``).

    Raises:
        InputError: a name that no sample has, or several have.
    """
    found = []
    for name in names:
        hits = [
            index
            for index, source in enumerate(sources)
            if name == source.name or source.name.endswith(f"/{name}")
        ]
        if len(hits) != 1:
            raise InputError("training sample", f"one sample called {name!r}", f"{len(hits)}")
        found += hits
    return found
