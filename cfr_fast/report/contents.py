"""What a report speaks of: every finished run of a results folder, read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import Any, TypeVar

from cfr_fast.errors import InputError
from cfr_fast.evaluation.results import NO_MODEL, CategoryResult, Summary, summarise
from cfr_fast.evaluation.store import RESULTS, RunKey, Store

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A finished run and what it found."""

    key: RunKey
    result: CategoryResult


@dataclass(frozen=True, eq=False)
class Contents:
    """A results folder in memory, without its maps.

    Args:
        store: where the maps are.
        record: of the protocol (``run.json``); empty where there is none.
        runs: at least one.
        written: when the latest result was.
    """

    store: Store
    record: Mapping[str, Any]
    runs: tuple[Run, ...]
    written: datetime

    @property
    def dataset(self) -> str:
        """Its name, as the results have it."""
        return self.runs[0].result.dataset

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """In order of first appearance, as all that follow."""
        return _distinct(run.key.category for run in self.runs)

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods that were run; none of `NO_MODEL`."""
        return _distinct(run.key.method for run in self.runs)

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """The methods, then those of `NO_MODEL` that the results have."""
        having = {name for run in self.runs for name in run.result.metrics}
        return (*self.methods, *(name for name in NO_MODEL if name in having))

    @cached_property
    def shots(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(sorted({run.key.shots for run in self.runs}))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """As the first runs have them."""
        return _distinct(run.key.seed for run in self.runs)

    @cached_property
    def summaries(self) -> list[Summary]:
        """Means over categories, deviations over seeds; for each number of shots in the order of `rows`."""
        found = summarise(run.result for run in self.runs)
        return sorted(found, key=lambda row: (row.shots, self.rows.index(row.method)))

    def of(self, method: str, shots: int, category: str | None = None) -> list[Run]:
        """The runs of a method at a number of shots, of all seeds."""
        return [
            run
            for run in self.runs
            if run.key.method == method
            and run.key.shots == shots
            and (category is None or run.key.category == category)
        ]


def read(store: Store) -> Contents:
    """Read every result of a folder.

    Raises:
        InputError: no finished run, results of several datasets, or a file that is broken.
    """
    keys = store.keys()
    if not keys:
        expected = "a folder that `cfr evaluate` wrote, with at least one finished run"
        raise InputError(str(store.folder), expected, "none in results/")
    runs = tuple(Run(key, store.result(key)) for key in keys)
    datasets = _distinct(run.result.dataset for run in runs)
    if len(datasets) > 1:
        raise InputError(str(store.folder), "results of one dataset", ", ".join(datasets))
    latest = max(path.stat().st_mtime for path in (store.folder / RESULTS).glob("*/*/*.json"))
    return Contents(store, store.record() or {}, runs, datetime.fromtimestamp(latest, timezone.utc))


def _distinct(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))
