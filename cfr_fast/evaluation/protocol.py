"""The paper's protocol for one category: choose shots, fit, judge the whole test split, measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.sample import Category, Sample
from cfr_fast.errors import InputError
from cfr_fast.evaluation.detector import Detector, MethodSet, OneMethod, Prediction
from cfr_fast.evaluation.measure import Findings, Truth
from cfr_fast.evaluation.no_model import mask_map, random_map, random_score
from cfr_fast.evaluation.readable import read_sample, read_shots
from cfr_fast.evaluation.results import (
    LIMITS,
    MASK_ONLY,
    NO_MODEL,
    RANDOM,
    SAMPLED,
    CategoryResult,
    ImageRow,
    aupro_key,
)
from cfr_fast.evaluation.shots import choose_shots
from cfr_fast.progress import track

_RATES = ("false_alarm_rate", "detection_rate")
# Without a model there is no threshold. And a mask has hardly any score that does not tie: sampled ranks say
# nothing about it.
_UNKNOWN = {RANDOM: _RATES, MASK_ONLY: (*_RATES, *(aupro_key(limit, SAMPLED) for limit in LIMITS))}

OnImage: TypeAlias = Callable[[str, Sample, Prediction], None]


@dataclass
class _Method:
    """What one method found."""

    findings: Findings = field(default_factory=Findings)
    images: list[ImageRow] = field(default_factory=list)
    seconds: float = 0.0


def evaluate_category(
    category: Category,
    shots: int,
    seed: int,
    build: Callable[[int], Detector],
    size: int = 224,
    *,
    dataset: str = "",
    rule: str | Sequence[int] = "rng42",
    method: str = "CFR",
    on_image: Callable[[Sample, Prediction], None] | None = None,
) -> CategoryResult:
    """`evaluate_methods` of a single detector.

    Args:
        category, shots, seed, size, dataset, rule: as there.
        build: makes an unfitted model from a seed.
        method: name of the model's row.
        on_image: called with every test sample and its prediction, in order.

    Raises:
        InputError: as there.
    """

    def passed_on(_: str, sample: Sample, result: Prediction) -> None:
        if on_image is not None:
            on_image(sample, result)

    methods = OneMethod(method, lambda: build(seed))
    options = {"dataset": dataset, "rule": rule, "on_image": passed_on}
    return evaluate_methods(category, shots, seed, methods, size, **options)[method]  # type: ignore[arg-type]


def evaluate_methods(
    category: Category,
    shots: int,
    seed: int,
    methods: MethodSet,
    size: int = 224,
    *,
    dataset: str = "",
    rule: str | Sequence[int] = "rng42",
    skip_bad: bool = False,
    record: Mapping[str, Any] | None = None,
    on_image: OnImage | None = None,
) -> dict[str, CategoryResult]:
    """Let methods learn from `shots` normal samples of a category; evaluate them on its whole test split.

    The test split is read once, for all methods. Pixel metrics are computed on the size×size grid. Beside a
    method's row there are two that need no model. The map of "mask only" is 1 where the prepared sample has a
    point and 0 elsewhere: it shows how much of a figure comes from knowing where the object is. Its AUPRO is
    the exact one only. The map of "random" is noise on the same pixels, and its image score is random, both
    decided by the seed and the image's names: it shows how far luck goes on these test images.

    Args:
        category: `train` is what shots are chosen from, `test` is what is measured.
        shots: number of training samples.
        seed: of the choice of shots, and of the row "random".
        methods: at least one.
        size: side of the grid of the methods' maps.
        dataset: name for the record.
        rule: as in `choose_shots`.
        skip_bad: leave out samples that cannot be read, and list them in the result; a training sample is
            replaced by the next one that can be read and was not chosen.
        record: kept in the results.
        on_image: called with a method's name, a test sample and the prediction, in order.

    Returns:
        For every method its metrics with their intervals over test images, timings and a row for each test
        image. Pixel metrics are NaN where an anomalous test image has no ground truth, image AUROC where all
        images are of one kind.

    Raises:
        InputError: no or too many shots, no test samples, a test sample of which nobody knows whether it is
            anomalous, a grid of another size; a sample that cannot be read, unless it is skipped.
    """
    indices = choose_shots(len(category.train), shots, seed, rule)
    if not category.test:
        raise InputError(f"category {category.name!r}", "at least one test sample", "none")
    skipped: list[str] = []
    chosen = read_shots(category.train, indices, skipped if skip_bad else None)
    fit_seconds = methods.fit([sample for _, sample in chosen])
    found = {name: _Method() for name in methods.names}
    no_model = {name: Findings() for name in NO_MODEL}
    masks: list[NDArray[np.bool_] | None] = []
    for source in track(category.test, f"{category.name}, {shots} shot: test"):
        sample = read_sample(source, skipped if skip_bad else None)
        if sample is None:
            continue
        defect = _defect(source.defect, sample)
        for number, (name, result, seconds) in enumerate(methods.judge(sample)):
            if result.raw_map.shape != (size, size):
                raise InputError("size", f"{result.raw_map.shape[0]}, the model's grid", f"{size}")
            own = found[name]
            own.findings.add(result.localization_map, result.raw_map, result.score)
            own.images.append(_row(source.name, defect, result))
            own.seconds += seconds
            if number == 0:
                # Every normalisation of the indicator of valid pixels leaves its localisation map and its
                # image score (1, whatever the image) as they are; only the pixel-AUROC scaling depends on it.
                valid = np.asarray(result.valid).reshape(size, size)
                mask, noise = mask_map(valid), random_map(valid, category.name, source.name, seed)
                no_model[MASK_ONLY].add(mask, mask, 1.0)
                no_model[RANDOM].add(noise, noise, random_score(category.name, source.name, seed))
                masks.append(grid_truth(sample, defect, result, size))
            if on_image is not None:
                on_image(name, sample, result)
    if not masks:
        raise InputError(f"category {category.name!r}", "a test sample that can be read", "none")
    images = next(iter(found.values())).images
    anomalous = [row.anomalous for row in images]
    truth = Truth(anomalous, masks)
    floor = {name: findings.measure(truth) for name, findings in no_model.items()}
    beside = {name: own.metrics | dict.fromkeys(_UNKNOWN[name], math.nan) for name, own in floor.items()}
    results = {}
    for name, own in found.items():
        measured = own.findings.measure(truth)
        results[name] = CategoryResult(
            dataset=dataset,
            category=category.name,
            shots=shots,
            seed=seed,
            rule=rule if isinstance(rule, str) else "list",
            training_samples=tuple(shot for shot, _ in chosen),
            size=size,
            normal=anomalous.count(False),
            anomalous=anomalous.count(True),
            metrics={name: measured.metrics | _alarms(own.images), **beside},
            fit_seconds=fit_seconds[name],
            predict_seconds=own.seconds / len(images),
            images=tuple(own.images),
            skipped=tuple(skipped),
            record=record or {},
            intervals={name: measured.intervals, **{row: floor[row].intervals for row in NO_MODEL}},
            gains=measured.gains(floor[MASK_ONLY]),
        )
    return results


def _row(name: str, defect: str, result: Prediction) -> ImageRow:
    numbers = (
        float(result.score),
        float(result.threshold),
        bool(result.label),
        float(result.replaced_fraction),
    )
    return ImageRow(name, defect, *numbers)


def _defect(listed: str | None, sample: Sample) -> str:
    """Defect type of a test sample; "defect" where only its mask says that there is one."""
    defect = listed if listed is not None else sample.defect
    if defect is not None:
        return defect
    if sample.is_anomalous is None:
        raise InputError(f"test sample {sample.name!r}", "a defect type or a ground truth", "neither")
    return "defect" if sample.is_anomalous else "good"


def grid_truth(sample: Sample, defect: str, result: Prediction, size: int) -> NDArray[np.bool_] | None:
    """Ground truth on the model's grid; None where an anomalous sample has none."""
    if sample.ground_truth is not None:
        return result.frame.grid_mask(sample.ground_truth, size)
    return np.zeros((size, size), dtype=bool) if defect == "good" else None


def _alarms(images: list[ImageRow]) -> dict[str, float]:
    """Share of normal images labelled anomalous, and of anomalous ones; NaN where there are none."""
    rates = {}
    for name, kind in (("false_alarm_rate", False), ("detection_rate", True)):
        labels = [row.label for row in images if row.anomalous == kind]
        rates[name] = sum(labels) / len(labels) if labels else math.nan
    return rates
