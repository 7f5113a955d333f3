"""One race: we and our peers on the same data in one process, rounds interleaved, medians compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

Contender = Callable[[], object]


class Seconds(float):
    """What a contender gives back that counts its own time, such as that of a part, extrapolated."""


@dataclass(frozen=True)
class Stage:
    """A part of a race that counts several times, such as one epoch of a hundred.

    Args:
        ours: our contender.
        peers: the others by name; the same names in every stage of a race.
        repeats: how often the stage happens in the whole.
        rounds: most rounds; slow stages take fewer.
        warm: whether a first round goes uncounted.
    """

    ours: Contender
    peers: Mapping[str, Contender]
    repeats: int = 1
    rounds: int = 5
    warm: bool = True


@dataclass(frozen=True)
class Race:
    """What is raced.

    Args:
        what: the work, with its sizes.
        stages: usually one.
        work: floating-point operations that the plain way takes, or None where that says nothing.
        traffic: bytes that have to be read and written at least, or None.
        bars: peers by name, with how many times as fast as they we promise to be.
        unit: of the numbers: seconds, or bytes where contenders give those back.
        same: proves that all contenders give the same answer; raises AssertionError if not.
    """

    what: str
    stages: tuple[Stage, ...]
    work: float | None = None
    traffic: float | None = None
    bars: Mapping[str, float] = field(default_factory=dict)
    unit: str = "s"
    same: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Outcome:
    """How a race ended.

    Args:
        race: its name in the registry.
        what: the work.
        unit: of `ours` and `peers`.
        ours: median, summed over stages with their repeats.
        peers: the same of every peer.
        bars: promised ratios.
        work: floating-point operations, or None.
        traffic: bytes, or None.
    """

    race: str
    what: str
    unit: str
    ours: float
    peers: Mapping[str, float]
    bars: Mapping[str, float]
    work: float | None
    traffic: float | None

    def ratio(self, peer: str) -> float:
        """How many times as fast (or small) as the peer we are."""
        return self.peers[peer] / self.ours


def run(name: str, race: Race, rounds: int | None = None) -> Outcome:
    """Check that the answers agree, then time all contenders in turns.

    Args:
        name: of the race.
        race: what to run.
        rounds: most rounds of every stage; None leaves it to the stage.
    """
    race.same()
    ours, peers = 0.0, dict.fromkeys(race.stages[0].peers, 0.0)
    for stage in race.stages:
        contenders = {"": stage.ours, **stage.peers}
        times: dict[str, list[float]] = {who: [] for who in contenders}
        turns = min(stage.rounds, rounds or stage.rounds)
        for turn in range(turns + stage.warm):
            for who, contender in contenders.items():
                value = _measure(contender, race.unit)
                if turn >= stage.warm:
                    times[who].append(value)
        ours += stage.repeats * median(times[""])
        for who in peers:
            peers[who] += stage.repeats * median(times[who])
    return Outcome(name, race.what, race.unit, ours, peers, race.bars, race.work, race.traffic)


def _measure(contender: Contender, unit: str) -> float:
    start = time.perf_counter()
    value = contender()
    seconds = time.perf_counter() - start
    return float(value) if unit == "bytes" or isinstance(value, Seconds) else seconds  # type: ignore[arg-type]
