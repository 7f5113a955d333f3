"""Scores of good and of anomalous images, back to back, with the threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import product

from cfr_fast.report import charts, svg
from cfr_fast.report.contents import Contents
from cfr_fast.report.histograms import BINS, Histogram


def histograms(contents: Contents, drawn: Sequence[Histogram]) -> str:
    """Scores of good images (up) and anomalous ones (down) with the threshold; method and shots to choose."""
    chosen = svg.choices(
        "method", "Method", [(name, name) for name in contents.methods]
    ) + charts.choose_shots(contents)
    panels = []
    for index, (method, shots) in enumerate(product(contents.methods, contents.shots)):
        figures = "".join(
            _histogram_figure(entry)
            for entry in drawn
            if (entry.run.key.method, entry.run.key.shots) == (method, shots)
        )
        content = svg.element("div", figures, class_="multiples") if figures else charts.nothing("not run")
        panels.append(svg.panel(content, index > 0, method=method, shots=shots))
    key = "".join(
        svg.element("li", f"<i class='{kind}'></i>{name}")
        for kind, name in (
            ("good", "good images, up"),
            ("bad", "anomalous images, down"),
            ("limit", "threshold"),
        )
    )
    return charts.chooser(chosen, svg.element("ul", key, class_="legend"), panels)


def _histogram_figure(entry: Histogram) -> str:
    height, most = 96, max(int(entry.normal.max()), int(entry.anomalous.max()), 1)
    shapes = "".join(
        svg.element("path", d=svg.steps(counts.tolist(), most, scale), class_=f"counts {kind}")
        for counts, scale, kind in ((entry.normal, -1, "good"), (entry.anomalous, 1, "bad"))
    )
    low, high = float(entry.edges[0]), float(entry.edges[-1])
    parts = [svg.stretched(shapes, BINS, 2 * most), svg.line("0", "50%", "100%", "50%", "base")]
    if not math.isnan(entry.threshold):
        at = (entry.threshold - low) / (high - low)
        anchor, shift = ("start", 4) if at < 0.6 else ("end", -4)
        parts.append(svg.line(svg.percent(at), "0", svg.percent(at), "100%", "threshold"))
        shown = f"{entry.threshold:.3g}"
        parts.append(svg.text(shown, x=svg.percent(at), dx=shift, y=10, text_anchor=anchor, class_="limit"))
    parts += [
        svg.text(f"{value:.3g}", x=place, y=height + 14, text_anchor=anchor, class_="tick")
        for value, place, anchor in ((low, "0", "start"), (high, "100%", "end"))
    ]
    said = verdicts(entry)
    key = entry.run.key
    label = f"{key.category}, scores of {key.method}: {said}; threshold {entry.threshold:.3g}"
    caption = svg.element("figcaption", f"{escape(key.category)} <small>{escape(said)}</small>")
    return svg.element("figure", caption + svg.chart(parts, height, label), class_="histogram")


def verdicts(entry: Histogram) -> str:
    """How many were found and how many good ones were blamed."""
    rows = entry.run.result.images
    bad, good = ([row for row in rows if row.anomalous == kind] for kind in (True, False))
    found = f"found {sum(row.label for row in bad)} of {len(bad)}"
    return f"{found}, false alarms {sum(row.label for row in good)} of {len(good)}"
