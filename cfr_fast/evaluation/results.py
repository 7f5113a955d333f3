"""What one evaluation found, as plain data that JSON can carry, and the means over several."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cfr_fast.errors import InputError
from cfr_fast.evaluation.confidence import Figure, Interval, clearly_above, interval_of_mean

LIMITS = (0.30, 0.10, 0.05, 0.01)
SAMPLED = 99
MASK_ONLY = "mask only"
RANDOM = "random"
NO_MODEL = (MASK_ONLY, RANDOM)  # rows that stand beside the methods, last and in this order


def aupro_key(limit: float, thresholds: int | None) -> str:
    """Name of an AUPRO among the metrics: ``aupro_30_99`` or ``aupro_30_exact``."""
    return f"aupro_{limit * 100:g}_{'exact' if thresholds is None else thresholds}"


METRICS = (
    "i_auroc",
    "p_auroc",
    *(aupro_key(limit, thresholds) for thresholds in (SAMPLED, None) for limit in LIMITS),
    "false_alarm_rate",
    "detection_rate",
)
WITH_INTERVAL = ("i_auroc", "p_auroc", *(aupro_key(limit, None) for limit in LIMITS))


@dataclass(frozen=True)
class ImageRow:
    """The verdict on one test image; `defect` is "good" for a normal one; `threshold` may be +∞."""

    name: str
    defect: str
    score: float
    threshold: float
    label: bool
    replaced_fraction: float

    @property
    def anomalous(self) -> bool:
        """What the image truly is."""
        return self.defect != "good"


@dataclass(frozen=True)
class CategoryResult:
    """One model of one category, on the whole test split.

    Args:
        dataset, category: names.
        shots, seed, rule: how the training samples were chosen ("list" for an explicit choice).
        training_samples: their names.
        size: side of the grid on which pixel metrics are computed.
        normal, anomalous: test images of each kind.
        metrics: by method (the model's, and `NO_MODEL`), by name (`METRICS`), each in [0, 1]; NaN where
            it has no meaning.
        fit_seconds: for the model; predict_seconds: mean of one image.
        images: a row for each test image.
        skipped: names of samples that could not be read and were left out.
        record: what made it: versions, settings, a fingerprint of the data; JSON-able.
        intervals: by method, by name (of `WITH_INTERVAL`): the middle 95 % of the metric over resampled test
            images (see `evaluation.bootstrap`), in [0, 1]; none where there are too few images.
        gains: by name, the same of the model's figure less that of "mask only", in [−1, 1].

    Results written before there were intervals or a row "random" lack them, and are read all the same.
    """

    dataset: str
    category: str
    shots: int
    seed: int
    rule: str
    training_samples: tuple[str, ...]
    size: int
    normal: int
    anomalous: int
    metrics: Mapping[str, Mapping[str, float]]
    fit_seconds: float
    predict_seconds: float
    images: tuple[ImageRow, ...]
    skipped: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    gains: Mapping[str, Interval] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers; JSON has neither NaN nor infinity.

        None stands for a metric that is NaN and for an infinite threshold, which no score exceeds.
        """
        plain = asdict(self)
        plain["metrics"] = {method: numbers(row) for method, row in self.metrics.items()}
        plain["training_samples"] = list(self.training_samples)
        plain["images"] = [
            asdict(row) | {"threshold": None if row.threshold == math.inf else row.threshold}
            for row in self.images
        ]
        plain["skipped"] = list(self.skipped)
        plain["intervals"] = {method: _lists(row) for method, row in self.intervals.items()}
        plain["gains"] = _lists(self.gains)
        return plain

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> CategoryResult:
        """Undo `to_json`.

        Raises:
            InputError: fields that are missing or unknown.
        """
        fields = dict(plain)
        try:
            fields["training_samples"] = tuple(fields["training_samples"])
            fields["images"] = tuple(
                ImageRow(**{**row, "threshold": math.inf if row["threshold"] is None else row["threshold"]})
                for row in fields["images"]
            )
            fields["skipped"] = tuple(fields.get("skipped", ()))
            fields["metrics"] = {
                method: {name: math.nan if value is None else value for name, value in row.items()}
                for method, row in fields["metrics"].items()
            }
            intervals = fields.get("intervals", {})
            fields["intervals"] = {method: _intervals(row) for method, row in intervals.items()}
            fields["gains"] = _intervals(fields.get("gains", {}))
            return CategoryResult(**fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError("evaluation result", "the fields of CategoryResult", str(error)) from error


@dataclass(frozen=True)
class Summary:
    """One method at one number of shots: mean over categories, then mean and deviation over seeds.

    Args:
        mean: by metric; a category where a metric has no meaning (NaN) does not enter its mean.
        deviation: sample standard deviation (n − 1) over seeds; NaN for one seed.
        seeds: none where the figures are published ones.
        intervals: of the means, by metric, as `interval_of_mean` makes them; where every figure has one.
        not_above_mask: metrics in which a method is not `clearly_above` "mask only".
    """

    dataset: str
    method: str
    shots: int
    seeds: tuple[int, ...]
    categories: tuple[str, ...]
    mean: Mapping[str, float]
    deviation: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    not_above_mask: tuple[str, ...] = ()

    @property
    def is_published(self) -> bool:
        """Whether the figures are others', not measured here."""
        return not self.seeds

    def label(self, most: int) -> str:
        """The method's name; with the number of its categories where others have more, up to `most`."""
        count = len(self.categories)
        some = "" if self.is_published or count == most else f" ({count} of {most} categories)"
        return self.method + some

    def to_json(self) -> dict[str, Any]:
        """As `CategoryResult.to_json`."""
        plain = asdict(self)
        plain["seeds"], plain["categories"] = list(self.seeds), list(self.categories)
        plain["mean"], plain["deviation"] = numbers(self.mean), numbers(self.deviation)
        plain["intervals"] = _lists(self.intervals)
        plain["not_above_mask"] = list(self.not_above_mask)
        return plain


@dataclass(frozen=True)
class Row:
    """One line of figures: a method (or one of `NO_MODEL`) of a result."""

    result: CategoryResult
    method: str
    metrics: Mapping[str, float]

    def figure(self, metric: str) -> Figure:
        """Its value and interval."""
        return self.metrics[metric], self.result.intervals.get(self.method, {}).get(metric)

    def gain(self, metric: str) -> Figure:
        """What the method has more than "mask only"; NaN where there is nothing to compare."""
        floor = self.result.metrics.get(MASK_ONLY, {}).get(metric, math.nan)
        own = math.nan if self.method in NO_MODEL else self.metrics[metric]
        return own - floor, self.result.gains.get(metric)

    @property
    def not_above_mask(self) -> tuple[str, ...]:
        """As in `Summary`."""
        return tuple(metric for metric in METRICS if not clearly_above(*self.gain(metric)))


def rows_of(results: Iterable[CategoryResult]) -> list[Row]:
    """All lines, those of one category, number of shots and seed together, `NO_MODEL` once and last."""
    groups: dict[tuple[str, str, int, int], dict[str, Row]] = {}
    for result in results:
        key = (result.dataset, result.category, result.shots, result.seed)
        lines = groups.setdefault(key, {})
        for method, metrics in result.metrics.items():
            lines.setdefault(method, Row(result, method, metrics))
    return [
        line
        for lines in groups.values()
        for line in sorted(lines.values(), key=lambda row: _place(row.method))
    ]


def summarise(results: Iterable[CategoryResult]) -> list[Summary]:
    """Means over categories and seeds, one row for each dataset, number of shots and method."""
    groups: dict[tuple[str, int], dict[str, list[Row]]] = {}
    for line in rows_of(results):
        group = groups.setdefault((line.result.dataset, line.result.shots), {})
        group.setdefault(line.method, []).append(line)
    return [
        _summary(dataset, method, shots, methods[method])
        for (dataset, shots), methods in groups.items()
        for method in sorted(methods, key=_place)
    ]


def _summary(dataset: str, method: str, shots: int, lines: list[Row]) -> Summary:
    seeds = tuple(dict.fromkeys(line.result.seed for line in lines))
    mean, deviation, intervals = {}, {}, {}
    not_above = []
    of_seed = [[line for line in lines if line.result.seed == seed] for seed in seeds]
    for metric in METRICS:
        by_seed = [_mean(line.metrics[metric] for line in group) for group in of_seed]
        mean[metric] = _mean(by_seed)
        deviation[metric] = float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else math.nan
        interval = interval_of_mean([[line.figure(metric) for line in group] for group in of_seed])
        if interval is not None:
            intervals[metric] = interval
        gains = [[line.gain(metric) for line in group] for group in of_seed]
        gain = _mean(_mean(value for value, _ in group) for group in gains)
        if not clearly_above(gain, interval_of_mean(gains), deviation[metric]):
            not_above.append(metric)
    categories = tuple(dict.fromkeys(line.result.category for line in lines))
    return Summary(dataset, method, shots, seeds, categories, mean, deviation, intervals, tuple(not_above))


def _place(method: str) -> int:
    """Methods first, in the order they have."""
    return 1 + NO_MODEL.index(method) if method in NO_MODEL else 0


def _lists(intervals: Mapping[str, Interval]) -> dict[str, list[float]]:
    return {name: [float(end) for end in ends] for name, ends in intervals.items()}


def _intervals(plain: Mapping[str, Any]) -> dict[str, Interval]:
    return {name: (low, high) for name, (low, high) in plain.items()}


def numbers(row: Mapping[str, float]) -> dict[str, float | None]:
    """The same with None for NaN."""
    return {name: None if math.isnan(value) else float(value) for name, value in row.items()}


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
