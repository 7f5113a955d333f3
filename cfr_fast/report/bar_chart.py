"""A bar for each method and category, with the deviation over seeds."""

from __future__ import annotations

import math
from html import escape
from itertools import product

import numpy as np

from cfr_fast.report import charts, svg
from cfr_fast.report.contents import Contents
from cfr_fast.report.style import CHARTED, amount, series

_ROW = 18  # pixels between bars


def bars(contents: Contents) -> str:
    """For each category a bar for each method, with the deviation over seeds; metric and shots to choose."""
    metrics = [key for key in CHARTED if not _undefined(contents, key)]
    chosen = svg.choices("metric", "Metric", [(key, CHARTED[key]) for key in metrics])
    chosen += charts.choose_shots(contents)
    panels = []
    for index, (metric, shots) in enumerate(product(metrics, contents.shots)):
        figures = "".join(_bar_figure(contents, metric, shots, category) for category in contents.categories)
        panels.append(
            svg.panel(svg.element("div", figures, class_="multiples"), index > 0, metric=metric, shots=shots)
        )
    return charts.chooser(chosen, charts.legend(contents), panels)


def _bar_figure(contents: Contents, metric: str, shots: int, category: str) -> str:
    rows = spread(contents, metric, shots, category)
    if not rows:
        return ""
    height = _ROW * len(rows)
    parts = [charts.grid(share, height, f"{share:.0%}") for share in (0.0, 0.5, 1.0)]
    for index, (method, mean, deviation) in enumerate(rows):
        top, kind = index * _ROW + 3, series(method, contents.methods)
        width = svg.percent(mean)
        parts.append(
            svg.element(
                "rect", x=0, y=top, width=width, height=_ROW - 6, rx=2, class_=f"bar {kind}", data_value=mean
            )
        )
        if not math.isnan(deviation):
            middle = f"{top + (_ROW - 6) / 2:g}"
            low, high = svg.percent(mean - deviation), svg.percent(mean + deviation)
            parts.append(svg.line(low, middle, high, middle, "whisker"))
            parts += [svg.line(x, f"{top + 2}", x, f"{top + _ROW - 8}", "whisker") for x in (low, high)]
        value = amount(mean, deviation)
        parts.append(svg.text(value, x="100%", dx=8, y=top + _ROW - 8, class_="value"))
    said = "; ".join(f"{method} {amount(mean, deviation)}" for method, mean, deviation in rows)
    label = f"{category}, {CHARTED[metric]}, percent: {said}"
    return svg.element(
        "figure",
        svg.element("figcaption", escape(category)) + svg.chart(parts, height, label),
        class_="bars",
    )


def spread(contents: Contents, metric: str, shots: int, category: str) -> list[tuple[str, float, float]]:
    """(method, mean, deviation over seeds) of a category, in the order of `Contents.rows`.

    Those without a value are left out. The deviation is NaN for one seed.
    """
    found = []
    for method in contents.rows:
        runs = [run for own in contents.methods for run in contents.of(own, shots, category)]
        by_seed = {
            run.key.seed: run.result.metrics[method][metric] for run in runs if method in run.result.metrics
        }
        values = [value for value in by_seed.values() if not math.isnan(value)]
        if values:
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
            found.append((method, math.fsum(values) / len(values), deviation))
    return found


def _undefined(contents: Contents, metric: str) -> bool:
    return all(math.isnan(run.result.metrics[run.key.method][metric]) for run in contents.runs)
