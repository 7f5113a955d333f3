"""A whole benchmark: every category, number of shots, seed and method, spread over processes, resumable."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from cfr_fast.data.fingerprint import fingerprint
from cfr_fast.data.sample import Category, Sample
from cfr_fast.errors import InputError, OutputError
from cfr_fast.evaluation.cloud import COLORS, write_cloud
from cfr_fast.evaluation.detector import MethodSet, Prediction
from cfr_fast.evaluation.gallery import Gallery, file_stem
from cfr_fast.evaluation.keep import KEEP, Keeper
from cfr_fast.evaluation.methods import Method
from cfr_fast.evaluation.protocol import evaluate_methods
from cfr_fast.evaluation.record import FORMAT, united, versions
from cfr_fast.evaluation.results import CategoryResult
from cfr_fast.evaluation.shots import choose_shots
from cfr_fast.evaluation.store import RunKey, Store, run_name, slug
from cfr_fast.evaluation.table import write_tables
from cfr_fast.presets import DEFAULT
from cfr_fast.progress import display
from cfr_fast.workers import Workers

REWRITE = 10.0  # least seconds between two versions of the tables while results come


@dataclass(frozen=True)
class Suite:
    """What is evaluated, and how.

    Args:
        dataset: name for the record.
        categories, methods, shots, seeds: at least one of each; all are combined.
        build: gives the methods listed, unfitted, for a seed.
        size: side of the grid of maps.
        rule: as in `choose_shots`.
        samples: names of the training samples where `rule` is a list.
        preset, settings: for the record; JSON-able.
        keep: whose maps are kept, one of `KEEP`.
        skip_bad: as in `evaluate_methods`.
        pictures: whether panels of the runs whose maps are kept are drawn, in ``pictures/``.
        clouds: colours of the clouds of those runs, in ``clouds/``, as in `write_cloud`; None writes none.
    """

    dataset: str
    categories: Sequence[Category]
    methods: Sequence[Method]
    build: Callable[[Sequence[Method], int], MethodSet]
    shots: Sequence[int] = (1,)
    seeds: Sequence[int] = (42,)
    size: int = 224
    rule: str | Sequence[int] = "rng42"
    samples: Sequence[str] = ()
    preset: str = DEFAULT
    settings: Mapping[str, Any] = field(default_factory=dict)
    keep: str = "first"
    skip_bad: bool = False
    pictures: bool = False
    clouds: str | None = None

    def __post_init__(self) -> None:
        for name in ("categories", "methods", "shots", "seeds"):
            if not getattr(self, name):
                raise InputError(name, "at least one", "none")
        if self.keep not in KEEP:
            raise InputError("--keep-maps", f"one of {', '.join(KEEP)}", repr(self.keep))
        if self.clouds not in (None, *COLORS):
            raise InputError("--clouds", f"one of {', '.join(COLORS)}", repr(self.clouds))

    @property
    def record(self) -> dict[str, Any]:
        """For ``run.json``; all training choices are tried, so that an impossible one fails at once."""
        for category in self.categories:
            for shots in self.shots:
                for seed in self.seeds:
                    choose_shots(len(category.train), shots, seed, self.rule)
        return {
            "format": FORMAT,
            "dataset": self.dataset,
            "size": self.size,
            "rule": self.rule if isinstance(self.rule, str) else "list",
            "samples": list(self.samples),
            "preset": self.preset,
            "settings": dict(self.settings),
            "versions": versions(),
            "categories": [category.name for category in self.categories],
            "methods": [method.name for method in self.methods],
            "shots": list(self.shots),
            "seeds": list(self.seeds),
            "definitions": {
                method.name: {"changes": dict(method.changes), "patchcore": list(method.patchcore)}
                for method in self.methods
            },
            "fingerprints": {category.name: fingerprint(category) for category in self.categories},
            "keep_maps": self.keep,
            "skip_bad": self.skip_bad,
        }

    def kept(self, key: RunKey) -> bool:
        """Whether the run's maps are kept."""
        first = key.method == self.methods[0].name and key.seed == self.seeds[0]
        return self.keep == "all" or (self.keep == "first" and first)


@dataclass(frozen=True)
class _Item:
    """One fit of everything that is missing at one number of shots and seed."""

    category: Category
    shots: int
    seed: int
    methods: tuple[Method, ...]

    def __str__(self) -> str:
        return f"{self.category.name}, {self.shots} shot, seed {self.seed}"


def run_suite(suite: Suite, folder: Path, workers: Workers | None = None) -> list[CategoryResult]:
    """Evaluate what the folder does not have yet, and write the tables of everything that it has.

    A run is done once its result is there, written whole; what was interrupted is computed again. Categories,
    shots, seeds and methods may be added to a folder; other settings or other data are refused.

    Args:
        suite: what to evaluate.
        folder: laid out as `Store` says; the tables are ``results.txt``, ``.csv``, ``.json`` and ``.tex``.
        workers: the processes to spread over; None is this one alone.

    Returns:
        All results in the folder; none in a process that does not lead.

    Raises:
        InputError: the folder holds results of other settings or data, or is in use; an impossible choice of
            shots; a sample that cannot be read, unless such are skipped.
        OutputError: something cannot be written; what was written before stays.
        WorkersError: another process failed or died.
    """
    workers, store = workers or Workers(), Store(folder)
    with ExitStack() as held, display(None if workers.leads else False):

        def begin() -> tuple[dict[str, Any], list[tuple[str, int, int, list[str]]]]:
            held.enter_context(_alone(folder))
            return _begin(suite, store), list(_missing(suite, store))

        record, missing = workers.lead(begin)
        categories = {category.name: category for category in suite.categories}
        methods = {method.name: method for method in suite.methods}
        items = [
            _Item(categories[category], shots, seed, tuple(methods[name] for name in names))
            for category, shots, seed, names in missing
        ]
        latest = monotonic()

        def do(item: _Item) -> None:
            nonlocal latest
            _run(suite, store, item, record)
            if workers.leads and monotonic() - latest > REWRITE:
                _write_tables(store)
                latest = monotonic()

        try:
            workers.work(f"Evaluating {suite.dataset}", items, str, do)
        except BaseException:
            if workers.leads:
                with suppress(OutputError):  # the first error is the one to hear of
                    _write_tables(store)
            raise
        return _write_tables(store) if workers.leads else []


def _write_tables(store: Store) -> list[CategoryResult]:
    results = list(store.results())
    if results:
        write_tables(store.folder, results)
    return results


def _begin(suite: Suite, store: Store) -> dict[str, Any]:
    record = united(str(store.folder), store.record(), suite.record)
    store.sweep()
    store.write_record(record)
    return record


def _missing(suite: Suite, store: Store) -> Iterator[tuple[str, int, int, list[str]]]:
    """What has to be computed: category, shots, seed, and names of methods."""
    for category in suite.categories:
        for shots in suite.shots:
            for seed in suite.seeds:
                names = []
                for method in suite.methods:
                    key = RunKey(category.name, method.name, shots, seed)
                    maps = not suite.kept(key) or (
                        store.has_evidence(key) and store.has_images(category.name)
                    )
                    if not (maps and store.has_result(key)):
                        names.append(method.name)
                if names:
                    yield category.name, shots, seed, names


def _run(suite: Suite, store: Store, item: _Item, record: Mapping[str, Any]) -> None:
    """Compute one item and write it, a method's maps before its result."""
    keys = {
        method.name: RunKey(item.category.name, method.name, item.shots, item.seed) for method in item.methods
    }
    keepers = {name: Keeper() for name, key in keys.items() if suite.kept(key)}
    run = run_name(item.shots, item.seed)
    pictures, clouds = (store.folder / part / item.category.name for part in ("pictures", "clouds"))
    galleries: dict[str, Gallery] = {}
    if suite.pictures:
        galleries = {name: Gallery(pictures / slug(name) / run) for name in keepers}

    def on_image(name: str, sample: Sample, result: Prediction) -> None:
        if name in keepers:
            keepers[name].add(sample, result)
        if name in galleries:
            galleries[name].add(sample, result)
        if name in keepers and suite.clouds is not None:
            cloud = clouds / slug(name) / run / f"{file_stem(sample.name)}.ply"
            write_cloud(cloud, sample, result, suite.clouds)

    found = evaluate_methods(
        item.category,
        item.shots,
        item.seed,
        suite.build(item.methods, item.seed),
        suite.size,
        dataset=suite.dataset,
        rule=suite.rule,
        skip_bad=suite.skip_bad,
        record={
            "preset": record["preset"],
            "settings": record["settings"],
            "samples": record["samples"],
            "versions": versions(),
            "fingerprint": record["fingerprints"][item.category.name],
        },
        on_image=on_image,
    )
    for gallery in galleries.values():
        gallery.finish()
    for name, keeper in keepers.items():
        store.write_images(item.category.name, keeper.images())
        store.write_evidence(keys[name], keeper.evidence())
    for name, result in found.items():
        own = record["definitions"][name]
        more = {"definition": own, **result.record}
        store.write_result(keys[name], CategoryResult(**{**vars(result), "record": more}))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder; the system forgets the lock of a process that died."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                "--out", "a folder that no other run is writing", f"{folder}, which one is"
            ) from None
        yield
