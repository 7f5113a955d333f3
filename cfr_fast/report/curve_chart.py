"""AUPRO against the limit of the false-positive rate, as lines."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import product

from cfr_fast.report import charts, svg
from cfr_fast.report.contents import Contents
from cfr_fast.report.curves import Curve
from cfr_fast.report.style import amount, series

_MEAN = "mean over categories"


def curves(contents: Contents, drawn: Sequence[Curve]) -> str:
    """AUPRO against the limit; the mean over categories first, category and shots to choose."""
    categories = [category for category in (None, *contents.categories) if _of(drawn, category)]
    chosen = svg.choices("category", "Category", [(name or "", name or _MEAN) for name in categories])
    chosen += charts.choose_shots(contents)
    panels = []
    for index, (category, shots) in enumerate(product(categories, contents.shots)):
        lines = [curve for curve in _of(drawn, category) if curve.shots == shots]
        content = (
            _curve_figure(contents, category or _MEAN, lines) if lines else charts.nothing("no curve here")
        )
        panels.append(svg.panel(content, index > 0, category=category or "", shots=shots))
    return charts.chooser(chosen, charts.legend(contents), panels)


def _curve_figure(contents: Contents, title: str, lines: Sequence[Curve]) -> str:
    height = 300
    parts = [_level(share, height) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    parts += [charts.grid(limit / 50, height, f"{limit} %") for limit in (0, 10, 20, 30, 40, 50)]
    paths = []
    for curve in reversed(lines):  # the first method lies on top
        points = " ".join(
            f"{100 * limit:g},{100 * (1 - value):.2f}"
            for limit, value in zip(curve.limits, curve.values, strict=True)
        )
        kind = series(curve.method, contents.methods)
        kind += "" if curve.from_maps else " sparse"
        paths.append(
            svg.element(
                "polyline", svg.element("title", escape(curve.method)), points=points, class_=f"curve {kind}"
            )
        )
    parts.append(svg.stretched("".join(paths), 50, 100))
    ends = ", ".join(
        f"{curve.method} {amount(curve.values[0])} at {curve.limits[0]:.0%} and {amount(curve.values[-1])} "
        f"at {curve.limits[-1]:.0%}"
        for curve in lines
    )
    plot = svg.chart(parts, height, f"{title}: exact AUPRO against the limit, percent: {ends}")
    axis = svg.element("p", "limit of the false-positive rate →", class_="axis")
    return svg.element("figure", svg.element("figcaption", escape(title)) + plot + axis, class_="wide")


def remarks(drawn: Sequence[Curve], contents: Contents) -> str:
    """What to say about curves of some seeds only, and about those that have stored limits only."""
    told = []
    kept = {run.key.seed for run in contents.runs if contents.store.has_evidence(run.key)}
    if any(curve.from_maps for curve in drawn) and not kept >= set(contents.seeds):
        seeds = ", ".join(str(seed) for seed in contents.seeds if seed in kept)
        told.append(f"Solid lines are of seed {seeds} alone, whose maps were kept.")
    sparse = [curve for curve in drawn if not curve.from_maps and curve.category is not None]
    if sparse:
        having = {curve.method for curve in sparse}
        methods = ", ".join(name for name in contents.rows if name in having)
        told.append(
            f"Dashed lines join the limits stored with the results (1, 5, 10 and 30 %): of {methods}, no "
            "maps were kept, or not of every category, or the ground truth is not known."
        )
    return " ".join(told)


def _level(share: float, height: int) -> str:
    y = f"{height * (1 - share):g}"
    drawn = svg.line("0", y, "100%", y, "grid")
    return drawn + svg.text(f"{share:.0%}", x=0, dx=-6, y=y, dy=4, text_anchor="end", class_="tick")


def _of(drawn: Sequence[Curve], category: str | None) -> list[Curve]:
    return [curve for curve in drawn if curve.category == category]
