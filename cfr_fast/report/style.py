"""Colours and names that page and figures share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cfr_fast.evaluation.results import LIMITS, MASK_ONLY, RANDOM, SAMPLED, aupro_key

# On light and on dark ground, each at least 4 : 1 against it.
SERIES = (
    ("#1f5fc4", "#76aefc"),
    ("#b8480b", "#f79a63"),
    ("#0b7a66", "#46cfb1"),
    ("#7d3fc8", "#bd9bff"),
    ("#8a6206", "#dfb650"),
    ("#b3246a", "#ff86b8"),
    ("#3f7113", "#9fd35d"),
)
NO_MODEL_COLOURS = {MASK_ONLY: ("#666c78", "#9aa1ae"), RANDOM: ("#85605a", "#c9a39c")}
NO_MODEL_SERIES = {MASK_ONLY: "s-mask", RANDOM: "s-random"}

DATASETS = {
    "mvtec3d": "MVTec 3D-AD",
    "eyecandies": "Eyecandies",
    "procedural": "Procedural set",
    "folder": "Own samples",
}

CHARTED = {
    "i_auroc": "I-AUROC",
    aupro_key(0.3, None): "AUPRO 30 %, exact",
    aupro_key(0.05, None): "AUPRO 5 %, exact",
    "p_auroc": "P-AUROC",
}

COLUMNS = {
    "i_auroc": ("", "I-AUROC"),
    "p_auroc": ("", "P-AUROC"),
    "detection_rate": ("at the threshold", "found"),
    "false_alarm_rate": ("at the threshold", "false alarms"),
    **{aupro_key(limit, None): ("AUPRO, exact", f"{limit:.0%}") for limit in LIMITS},
    **{aupro_key(limit, SAMPLED): (f"AUPRO, {SAMPLED} thresholds", f"{limit:.0%}") for limit in LIMITS},
}
"""Metric → (group, name) of its column in the table."""


def colour(method: str, methods: Sequence[str]) -> tuple[str, str]:
    """Of a method's bars and lines, on light and on dark ground."""
    return NO_MODEL_COLOURS.get(method) or SERIES[methods.index(method) % len(SERIES)]


def series(method: str, methods: Sequence[str]) -> str:
    """The method's class name on the page; ``report.css`` colours what has it."""
    return NO_MODEL_SERIES.get(method) or f"s-{methods.index(method) % len(SERIES)}"


def dataset_title(name: str) -> str:
    """The dataset's name as its authors write it."""
    return DATASETS.get(name, name)


def plural(count: int, one: str, many: str = "") -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def amount(value: float, deviation: float = math.nan) -> str:
    """Percent with one digit: ``78.5 ± 1.2``; a dash for NaN."""
    if math.isnan(value):
        return "—"
    return f"{100 * value:.1f}" + ("" if math.isnan(deviation) else f" ± {100 * deviation:.1f}")
