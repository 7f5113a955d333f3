"""The methods that a benchmark compares: CFR, what it is made of, and PatchCore, all on the same features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from cfr_fast.data.sample import Sample, SampleSource
from cfr_fast.errors import InputError
from cfr_fast.evaluation.detector import Prediction
from cfr_fast.evaluation.store import slug
from cfr_fast.model import CFR
from cfr_fast.patchcore import PatchCore


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Args:
        name: of the row.
        changes: settings in which it differs from the model given.
        patchcore: kinds of features that PatchCore measures; empty is CFR.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    patchcore: tuple[str, ...] = ()


_PAPER = {"score": "discrepancy"}  # whatever the model's score is, the paper's own map

METHODS = {
    slug(method.name): method
    for method in (
        Method("CFR"),
        Method("CFR paper", _PAPER),
        Method("CFR nearest", {"replacement": "nearest", **_PAPER}),
        Method("cycle only", {"replacement": "none", **_PAPER}),
        Method("CFM", {"mapper": "mlp", "cycle": False, "replacement": "none", **_PAPER}),
        Method("PatchCore RGB", patchcore=("rgb",)),
        Method("PatchCore 3D", patchcore=("xyz",)),
        Method("PatchCore RGB+3D", patchcore=("rgb", "xyz")),
    )
}
_GROUPS = {
    "patchcore": [name for name in METHODS if name.startswith("patchcore")],
    "all": [name for name in METHODS if name != "cfr-paper"],
}

# What decides which features are extracted: methods that share features cannot differ in it.
EXTRACTION = (
    *("rgb", "xyz", "rgb_options", "xyz_options", "size", "crop", "background", "expanded_distances"),
    *("shot_views", "calibration_views", "bank_background", "turns", "flips", "seed"),
)


def methods_called(names: Sequence[str]) -> list[Method]:
    """The methods of these names (``cfr``, ``patchcore-3d``, …), each once.

    ``patchcore`` stands for its three forms, ``all`` for every method.

    Raises:
        InputError: an unknown name, or none.
    """
    wanted: list[str] = []
    for name in names:
        known = _GROUPS.get(name, [name] if name in METHODS else [])
        if not known:
            raise InputError("--methods", f"names among {', '.join((*METHODS, *_GROUPS))}", repr(name))
        wanted += known
    if not wanted:
        raise InputError("--methods", "at least one", "none")
    return [METHODS[name] for name in dict.fromkeys(wanted)]


class SharedFeatures:
    """Methods that see the same features, extracted once for all of them.

    The seconds of a method are those of the extraction and its own; what it shares with an earlier one, such
    as the mappers, was counted there.

    Args:
        methods: at least one.
        build: makes an unfitted model with these settings changed.
        lead: extracts; kept by the caller, it brings its frozen networks along.

    Raises:
        InputError: a method that would need other features, or has a setting out of range.
    """

    def __init__(
        self, methods: Sequence[Method], build: Callable[[Mapping[str, Any]], CFR], lead: CFR | None = None
    ) -> None:
        self.names = tuple(method.name for method in methods)
        self._extractor = build({}) if lead is None else build({}).with_extractors_of(lead)
        self._models: dict[str, CFR | PatchCore] = {}
        for method in methods:
            for name in EXTRACTION:
                if name in method.changes:
                    raise InputError(f"method {method.name}", "settings after the extractors alone", name)
            model = build(method.changes)
            self._models[method.name] = (
                PatchCore(method.patchcore, model.settings) if method.patchcore else model
            )

    @property
    def lead(self) -> CFR:
        """The model that extracts."""
        return self._extractor

    def fit(self, samples: Sequence[Sample | SampleSource], /) -> dict[str, float]:
        """As `MethodSet.fit`."""
        started = perf_counter()
        lesson = self._extractor.lesson(samples)
        extraction = perf_counter() - started
        seconds = {}
        for name, model in self._models.items():
            started = perf_counter()
            model.fit_lesson(lesson)
            seconds[name] = extraction + perf_counter() - started
        return seconds

    def judge(self, sample: Sample, /) -> Iterator[tuple[str, Prediction, float]]:
        """As `MethodSet.judge`."""
        started = perf_counter()
        features = self._extractor.features(sample)
        extraction = perf_counter() - started
        for name, model in self._models.items():
            started = perf_counter()
            result = model.predict_features(sample.name, features)
            yield name, result, extraction + perf_counter() - started
