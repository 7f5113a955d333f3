"""Published figures of the two benchmarks, to stand beside measured ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cfr_fast.evaluation.results import METRICS, SAMPLED, Summary, aupro_key

MARK = "published, all 10 categories"

CATEGORIES = {
    "mvtec3d": (
        *("bagel", "cable_gland", "carrot", "cookie", "dowel"),
        *("foam", "peach", "potato", "rope", "tire"),
    ),
    "eyecandies": (
        *("CandyCane", "ChocolateCookie", "ChocolatePraline", "Confetto", "GummyBear"),
        *("HazelnutTruffle", "LicoriceSandwich", "Lollipop", "Marshmallow", "PeppermintCandy"),
    ),
}

# Dataset, method, shots: I-AUROC and AUPRO at 30 %, in percent, means over the categories.
# CFR: the paper (ICML 2026). CMDS-AD: 2026; it uses diffusion models at training.
_FIGURES = (
    ("mvtec3d", "CFR", 1, 74.0, 92.3),
    ("mvtec3d", "CFR", 4, 80.5, 94.2),
    ("mvtec3d", "CMDS-AD", 1, 79.6, 94.2),
    ("mvtec3d", "CMDS-AD", 4, 87.1, 95.8),
    ("eyecandies", "CFR", 1, 75.9, 82.7),
    ("eyecandies", "CFR", 4, 77.9, 84.7),
    ("eyecandies", "CMDS-AD", 1, 77.2, 85.5),
    ("eyecandies", "CMDS-AD", 4, 82.7, 87.7),
)


def with_published(summaries: Sequence[Summary]) -> list[Summary]:
    """The summaries, after those of each number of shots the published rows of the same dataset and shots.

    Only where every category is one of the benchmark's: a set of one's own in the same layout has none. They
    are marked, and no measured row: their figures are always means over all ten categories.
    """
    found: list[Summary] = []
    for place, row in enumerate(summaries):
        found.append(row)
        following = summaries[place + 1 : place + 2]
        if not following or (following[0].dataset, following[0].shots) != (row.dataset, row.shots):
            found += _rows(row.dataset, row.shots, row.categories)
    return found


def _rows(dataset: str, shots: int, categories: Sequence[str]) -> list[Summary]:
    known = CATEGORIES.get(dataset, ())
    if not set(categories) <= set(known):
        return []
    nothing = dict.fromkeys(METRICS, math.nan)
    rows = []
    for name, method, count, image, area in _FIGURES:
        if (name, count) == (dataset, shots):
            mean = nothing | {"i_auroc": image / 100, aupro_key(0.3, SAMPLED): area / 100}
            rows.append(Summary(dataset, f"{method} ({MARK})", shots, (), known, mean, nothing))
    return rows
