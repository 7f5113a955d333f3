"""The test images with their maps, as JSON that ``report.js`` draws."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cfr_fast.errors import InputError
from cfr_fast.evaluation.colors import palette
from cfr_fast.evaluation.store import Evidence, Images, slug
from cfr_fast.progress import track
from cfr_fast.report import pictures
from cfr_fast.report.contents import Contents, Run

BUDGET = 28_000_000  # characters of pictures on a page
_METHODS = 2  # shown unless told otherwise: every method is one more map for every image


@dataclass(frozen=True)
class Shown:
    """One test image: what the page says of it, and its pictures."""

    kind: tuple[int, str]  # category and defect type
    facts: Mapping[str, Any]
    pixels: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Characters of its pictures."""
        return len(json.dumps(self.pixels))


@dataclass(frozen=True)
class Gallery:
    """What goes on the page.

    Args:
        facts: JSON-able: palette, methods, categories, a row for each image.
        pixels: for each category, a list with the pictures of each of its images, in the order of `facts`.
        shots, seed: of the runs shown.
        shown, total: number of images.
        each: most images of a category and defect type; None where all are shown.
    """

    facts: Mapping[str, Any]
    pixels: Sequence[Sequence[Mapping[str, Any]]]
    shots: int
    seed: int
    shown: int
    total: int
    each: int | None


def make_gallery(
    contents: Contents,
    each: int | None = None,
    methods: Sequence[str] | None = None,
    shots: int | None = None,
    budget: int = BUDGET,
) -> Gallery | None:
    """Collect the pictures of the runs whose maps were kept.

    Args:
        contents: of the results folder.
        each: most images of each category and defect type, the first ones of the test split; None is as many
            as `budget` allows, at least one.
        methods: whose maps to show; None is the first two kept.
        shots: of the runs; None is the largest number kept. Of the seeds, the first one kept.
        budget: characters of pictures.

    Returns:
        None where no maps were kept at all.

    Raises:
        InputError: `each` below 1; methods or shots whose maps were not kept; a broken file.
    """
    if each is not None and each < 1:
        raise InputError("images", "at least 1 of each defect type", f"{each}")
    kept = [
        run
        for run in contents.runs
        if contents.store.has_evidence(run.key) and contents.store.has_images(run.key.category)
    ]
    if not kept:
        return None
    shots = _chosen("shots", [run.key.shots for run in kept], shots)
    kept = [run for run in kept if run.key.shots == shots]
    known = [name for name in contents.methods if any(run.key.method == name for run in kept)]
    columns = [_known(name, known) for name in methods] if methods else known[:_METHODS]
    seed = next(run.key.seed for run in kept if run.key.method in columns)
    runs = {(run.key.category, run.key.method): run for run in kept if run.key.seed == seed}
    names = [name for name in contents.categories if any((name, method) in runs for method in columns)]
    images: list[Shown] = []
    categories = []
    for index, name in enumerate(track(names, "Pictures")):
        found = [runs.get((name, method)) for method in columns]
        settings, rows = _category(contents, index, found)
        categories.append({"name": name, "runs": settings})
        images += rows
    each_shown = _most(images, budget) if each is None else each
    places = _places(images)
    shown = [image for image, place in zip(images, places, strict=True) if place < each_shown]
    return Gallery(
        facts={
            "palette": palette("inferno").tobytes().hex(),
            "methods": columns,
            "categories": categories,
            "images": [image.facts for image in shown],
        },
        pixels=[[image.pixels for image in shown if image.kind[0] == index] for index in range(len(names))],
        shots=shots,
        seed=seed,
        shown=len(shown),
        total=len(images),
        each=each_shown if len(shown) < len(images) else None,
    )


def _chosen(name: str, kept: Sequence[int], wanted: int | None) -> int:
    if wanted is not None and wanted not in kept:
        known = ", ".join(str(value) for value in sorted(set(kept)))
        raise InputError(name, f"among those whose maps were kept: {known}", f"{wanted}")
    return max(kept) if wanted is None else wanted


def _known(wanted: str, known: Sequence[str]) -> str:
    """The method of this name, which may be written as `cfr evaluate` takes it."""
    for name in known:
        if slug(name) == slug(wanted):
            return name
    raise InputError("methods", f"among those whose maps were kept: {', '.join(known)}", repr(wanted))


def _category(
    contents: Contents, index: int, runs: Sequence[Run | None]
) -> tuple[list[dict[str, Any] | None], list[Shown]]:
    """Scale and thresholds of each run, and every image that any of them judged."""
    (name,) = {run.key.category for run in runs if run is not None}
    images = contents.store.images(name)
    assert images is not None  # looked for before
    evidence = [None if run is None else contents.store.evidence(run.key) for run in runs]
    settings = [None if entry is None else _setting(entry) for entry in evidence]
    judged: dict[str, list[tuple[int, Any] | None]] = {}
    for column, (run, entry) in enumerate(zip(runs, evidence, strict=True)):
        rows = {} if run is None else {row.name: row for row in run.result.images}
        for place, image in enumerate(() if entry is None else entry.names):
            if image in rows:
                judged.setdefault(image, [None] * len(runs))[column] = (place, rows[image])
    found = []
    for place, image in enumerate(images.names):
        if image in judged:
            found.append(_image(images, place, index, judged[image], evidence, settings))
    return settings, found


def _setting(evidence: Evidence) -> dict[str, Any]:
    top = float(evidence.score_map.max(initial=0))
    threshold, pixel = (
        value if math.isfinite(value) else None for value in (evidence.threshold, evidence.pixel_threshold)
    )
    scale = top if math.isfinite(top) and top > 0 else 1.0
    return {"scale": scale, "threshold": threshold, "pixel_threshold": pixel}


def _image(
    images: Images,
    place: int,
    category: int,
    judged: Sequence[tuple[int, Any] | None],
    evidence: Sequence[Evidence | None],
    settings: Sequence[Mapping[str, Any] | None],
) -> Shown:
    shade, span = pictures.depth(images.depth[place])
    truth = images.truth[place]
    unknown, defect = bool((truth == 255).any()), bool((truth == 1).any())
    verdicts: list[dict[str, Any] | None] = []
    maps: list[str | None] = []
    replaced: list[str | None] = []
    kind = ""
    for entry, found, setting in zip(judged, evidence, settings, strict=True):
        if entry is None or found is None or setting is None:
            verdicts.append(None)
            maps.append(None)
            replaced.append(None)
            continue
        at, row = entry
        kind = row.defect
        verdicts.append({"score": row.score, "label": row.label, "replaced": row.replaced_fraction})
        maps.append(pictures.levels(found.score_map[at], setting["scale"]))
        layer = found.replaced[at] != 0
        replaced.append(pictures.flags(layer) if layer.any() else None)
    facts = {
        "category": category,
        "name": images.names[place],
        "defect": kind,
        "truth": "unknown" if unknown else "known",
        "depth": span,
        "verdicts": verdicts,
    }
    pixels = {
        "rgb": pictures.photo(images.rgb[place]),
        "depth": shade,
        "truth": pictures.flags(truth == 1) if defect and not unknown else None,
        "maps": maps,
        "replaced": replaced,
    }
    return Shown((category, kind), facts, pixels)


def _places(images: Sequence[Shown]) -> list[int]:
    """For each image, how many of its category and defect type come before it."""
    seen: dict[tuple[int, str], int] = {}
    places = []
    for image in images:
        places.append(seen.get(image.kind, 0))
        seen[image.kind] = places[-1] + 1
    return places


def _most(images: Sequence[Shown], budget: int) -> int:
    """The largest number of each kind whose pictures stay within `budget`; at least 1."""
    by_place: dict[int, int] = {}
    for image, place in zip(images, _places(images), strict=True):
        by_place[place] = by_place.get(place, 0) + image.size
    total = 0
    for place in sorted(by_place):
        total += by_place[place]
        if total > budget:
            return max(place, 1)
    return len(by_place)
