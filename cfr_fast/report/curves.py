"""AUPRO against the limit of the false-positive rate, for each method and category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cfr_fast.evaluation.aupro import aupro
from cfr_fast.evaluation.no_model import mask_map, random_map
from cfr_fast.evaluation.results import LIMITS, MASK_ONLY, NO_MODEL, RANDOM, aupro_key
from cfr_fast.evaluation.store import Evidence, Images, RunKey
from cfr_fast.progress import track
from cfr_fast.report.contents import Contents, Run

PERCENT = tuple(limit / 100 for limit in range(1, 51))
STORED = tuple(sorted(LIMITS))

Kept: TypeAlias = "tuple[RunKey, Evidence, NDArray[np.bool_]]"
"""A run, its maps, and their ground truth."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Exact AUPRO of one method against the limit.

    Args:
        category: None is the mean over categories.
        limits: 1 % to 50 % where maps were kept, else the limits that results hold.
        values: the mean over seeds, one for each limit.
        from_maps: which of the two.
    """

    method: str
    shots: int
    category: str | None
    limits: tuple[float, ...]
    values: NDArray[np.float64]
    from_maps: bool


def draw_curves(contents: Contents) -> list[Curve]:
    """A curve for every row ("mask only" and "random" too), number of shots and category, and their means.

    A method's mean is taken from maps only where every one of its categories has them. Without any defect,
    or without ground truth, there is no curve.
    """
    found: list[Curve] = []
    wanted = [(shots, category) for shots in contents.shots for category in contents.categories]
    for shots, category in track(wanted, "AUPRO against the limit"):
        images = contents.store.images(category)
        for row in contents.rows:
            runs = _runs(contents, row, shots, category)
            if runs:
                kept = _kept(contents, runs, images)
                found.append(_from_maps(row, kept) if kept else _stored(runs, row))
    found = [curve for curve in found if np.isfinite(curve.values).all()]
    return found + _means(found, contents)


def _runs(contents: Contents, row: str, shots: int, category: str) -> list[Run]:
    """A method's runs; for one of `NO_MODEL` a run of each seed that has it, with its maps where any has."""
    if row not in NO_MODEL:
        return contents.of(row, shots, category)
    having = [
        run
        for method in contents.methods
        for run in contents.of(method, shots, category)
        if row in run.result.metrics
    ]
    having.sort(key=lambda run: contents.store.has_evidence(run.key))
    return list({run.key.seed: run for run in having}.values())


def _kept(contents: Contents, runs: Sequence[Run], images: Images | None) -> list[Kept]:
    """The runs whose maps were kept, with those and their ground truth; none where any of it is unknown."""
    found = []
    for run in runs if images is not None else ():
        evidence = contents.store.evidence(run.key)
        truth = None if evidence is None or images is None else truth_of(images, evidence)
        if evidence is not None and truth is None:
            return []
        if evidence is not None and truth is not None:
            found.append((run.key, evidence, truth))
    return found


def _from_maps(method: str, kept: Sequence[Kept]) -> Curve:
    """The curve of a run's method, or of one of `NO_MODEL` on its valid pixels."""
    if method == MASK_ONLY:
        kept = kept[:1]  # all seeds have the same
    areas = [aupro(_maps(method, key, evidence), truth, PERCENT) for key, evidence, truth in kept]
    key = kept[0][0]
    return Curve(method, key.shots, key.category, PERCENT, np.mean(np.array(areas), axis=0), True)


def _maps(method: str, key: RunKey, evidence: Evidence) -> list[NDArray[np.float32]]:
    if method == MASK_ONLY:
        return [mask_map(valid) for valid in evidence.valid]
    if method == RANDOM:
        pairs = zip(evidence.valid, evidence.names, strict=True)
        return [random_map(valid, key.category, name, key.seed) for valid, name in pairs]
    return list(evidence.map.astype(np.float32))


def truth_of(images: Images, evidence: Evidence) -> NDArray[np.bool_] | None:
    """Ground truth in the order of the evidence, bool [N, s, s]; None where any is unknown."""
    place = {name: index for index, name in enumerate(images.names)}
    if not set(evidence.names) <= place.keys():
        return None
    truth = images.truth[[place[name] for name in evidence.names]]
    return None if (truth == 255).any() else truth != 0


def _stored(runs: Sequence[Run], method: str) -> Curve:
    rows = [[run.result.metrics[method][aupro_key(limit, None)] for limit in STORED] for run in runs]
    return Curve(method, runs[0].key.shots, runs[0].key.category, STORED, np.mean(rows, axis=0), False)


def _means(curves: Sequence[Curve], contents: Contents) -> list[Curve]:
    means = []
    for shots in contents.shots:
        for method in contents.rows:
            group = [curve for curve in curves if curve.method == method and curve.shots == shots]
            if not group:
                continue
            from_maps = all(curve.from_maps for curve in group)
            limits = PERCENT if from_maps else STORED
            rows = [
                curve.values
                if curve.limits == limits
                else curve.values[[PERCENT.index(limit) for limit in limits]]
                for curve in group
            ]
            means.append(Curve(method, shots, None, limits, np.mean(rows, axis=0), from_maps))
    return means
