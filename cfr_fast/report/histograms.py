"""How the scores of normal and of anomalous images are spread, and where the threshold lies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfr_fast.report.contents import Contents, Run

BINS = 24


@dataclass(frozen=True, eq=False)
class Histogram:
    """Image scores of one run.

    Args:
        run: the first of its seeds.
        edges: float64 [BINS + 1], from 0.
        normal, anomalous: int64 [BINS], images in each bin.
        threshold: NaN where none was calibrated.
    """

    run: Run
    edges: NDArray[np.float64]
    normal: NDArray[np.int64]
    anomalous: NDArray[np.int64]
    threshold: float


def draw_histograms(contents: Contents) -> Iterator[Histogram]:
    """One for each method, number of shots and category; thresholds differ by seed, so one seed each."""
    for method in contents.methods:
        for shots in contents.shots:
            for category in contents.categories:
                runs = contents.of(method, shots, category)
                if runs and runs[0].result.images:
                    yield histogram(runs[0])


def histogram(run: Run) -> Histogram:
    """Count the scores of one run in bins of one width."""
    rows = run.result.images
    threshold = rows[0].threshold if math.isfinite(rows[0].threshold) else math.nan
    scores = np.array([row.score for row in rows])
    low = min(0.0, float(scores.min()))
    top = float(np.nanmax([*scores, threshold]))
    edges = np.linspace(low, low + 1.02 * (top - low) if top > low else low + 1.0, BINS + 1)
    anomalous = np.array([row.anomalous for row in rows])
    counts = [np.histogram(scores[anomalous == kind], edges)[0] for kind in (False, True)]
    return Histogram(run, edges, counts[0], counts[1], threshold)
