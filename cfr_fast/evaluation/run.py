"""The protocol over categories, numbers of shots and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path

from cfr_fast.data.sample import Category
from cfr_fast.errors import InputError
from cfr_fast.evaluation.detector import Detector
from cfr_fast.evaluation.gallery import Gallery
from cfr_fast.evaluation.protocol import evaluate_category
from cfr_fast.evaluation.results import CategoryResult
from cfr_fast.evaluation.shots import choose_shots
from cfr_fast.progress import display, track


def evaluate(
    dataset: str,
    categories: Sequence[Category],
    build: Callable[[int], Detector],
    *,
    shots: Iterable[int] = (1,),
    seeds: Iterable[int] = (42,),
    rule: str | Sequence[int] = "rng42",
    size: int = 224,
    method: str = "CFR",
    pictures: Path | None = None,
    on_result: Callable[[CategoryResult], None] | None = None,
) -> list[CategoryResult]:
    """Evaluate every category with every number of shots and every seed; one model each.

    All choices of shots are made before the first model is fitted, so that an impossible one fails at once.

    Args:
        dataset: name for the record.
        categories: at least one.
        build: makes an unfitted model from a seed.
        shots, seeds: what to combine; the seed draws the shots and goes to `build`.
        rule, size, method: as in `evaluate_category`.
        pictures: folder for a panel of every test image and a contact sheet, under
            ``<category>/<shots>-shot_seed-<seed>/``; None draws nothing.
        on_result: called with every result as it comes.

    Raises:
        InputError: as `evaluate_category`; also without categories, shots or seeds.
        OutputError: a picture that cannot be written.
    """
    settings = list(product(categories, shots, seeds))
    if not settings:
        raise InputError("evaluate", "at least one category, number of shots and seed", "none")
    for category, count, seed in settings:
        choose_shots(len(category.train), count, seed, rule)
    results = []
    with display():
        for category, count, seed in track(settings, f"evaluate {dataset}"):
            gallery = None
            if pictures is not None:
                gallery = Gallery(pictures / category.name / f"{count}-shot_seed-{seed}")
            result = evaluate_category(
                category,
                count,
                seed,
                build,
                size,
                dataset=dataset,
                rule=rule,
                method=method,
                on_image=None if gallery is None else gallery.add,
            )
            if gallery is not None:
                gallery.finish()
            if on_result is not None:
                on_result(result)
            results.append(result)
    return results
