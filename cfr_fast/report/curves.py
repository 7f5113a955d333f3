"""AUPRO against the limit of the false-positive rate, for each method and category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfr_fast.evaluation.aupro import aupro
from cfr_fast.evaluation.results import LIMITS, MASK_ONLY, aupro_key
from cfr_fast.evaluation.store import Evidence, Images
from cfr_fast.progress import track
from cfr_fast.report.contents import Contents, Run

PERCENT = tuple(limit / 100 for limit in range(1, 51))
STORED = tuple(sorted(LIMITS))


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
    """A curve for every method ("mask only" too), number of shots and category, and their means.

    A method's mean is taken from maps only where every one of its categories has them. Without any defect,
    or without ground truth, there is no curve.
    """
    found: list[Curve] = []
    wanted = [(shots, category) for shots in contents.shots for category in contents.categories]
    for shots, category in track(wanted, "AUPRO against the limit"):
        images = contents.store.images(category)
        masked: Curve | None = None
        for method in contents.methods:
            runs = contents.of(method, shots, category)
            if not runs:
                continue
            own, mask = _from_maps(contents, runs, images) or (
                _stored(runs, method),
                _stored(runs, MASK_ONLY),
            )
            found.append(own)
            if masked is None or (mask.from_maps and not masked.from_maps):
                masked = mask
        if masked is not None:
            found.append(masked)
    found = [curve for curve in found if np.isfinite(curve.values).all()]
    return found + _means(found, contents)


def _from_maps(contents: Contents, runs: Sequence[Run], images: Images | None) -> tuple[Curve, Curve] | None:
    """The method's curve and that of its valid pixels; None where nothing was kept or truth is unknown."""
    kept = [(run, contents.store.evidence(run.key)) for run in runs]
    pairs = [(run, evidence) for run, evidence in kept if evidence is not None]
    if images is None or not pairs:
        return None
    own: list[NDArray[np.float64]] = []
    mask: list[NDArray[np.float64]] = []
    for _, evidence in pairs:
        truth = truth_of(images, evidence)
        if truth is None:
            return None
        own.append(np.array(aupro(evidence.map.astype(np.float32), truth, PERCENT)))
        if not mask:
            mask.append(np.array(aupro(evidence.valid.astype(np.float32), truth, PERCENT)))
    key = pairs[0][0].key
    return (
        Curve(key.method, key.shots, key.category, PERCENT, np.mean(own, axis=0), True),
        Curve(MASK_ONLY, key.shots, key.category, PERCENT, mask[0], True),
    )


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
        for method in (*contents.methods, MASK_ONLY):
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
