"""The page: everything in one HTML file that needs no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from cfr_fast import __version__
from cfr_fast.evaluation.confidence import LEGEND, RULE
from cfr_fast.report import svg
from cfr_fast.report.bar_chart import bars
from cfr_fast.report.contents import Contents
from cfr_fast.report.curve_chart import curves, remarks
from cfr_fast.report.curves import Curve
from cfr_fast.report.gallery import Gallery
from cfr_fast.report.header import facts, figures_of_merit, subtitle
from cfr_fast.report.histogram_chart import histograms
from cfr_fast.report.histograms import Histogram
from cfr_fast.report.style import NO_MODEL_COLOURS, NO_MODEL_SERIES, SERIES, dataset_title, plural
from cfr_fast.report.tables import results_table


def render(
    contents: Contents, drawn: Sequence[Curve], spread: Sequence[Histogram], gallery: Gallery | None
) -> str:
    """The whole page, in UTF-8."""
    title = dataset_title(contents.dataset) or "Results"
    return Template(asset("page.html")).substitute(
        title=escape(title),
        subtitle=escape(subtitle(contents)),
        style=_colours() + asset("report.css"),
        script=asset("report.js"),
        merit=figures_of_merit(contents),
        facts=facts(contents),
        table=results_table(contents),
        legend=f"{LEGEND}: {escape(RULE)}.",
        bars=bars(contents),
        curves=curves(contents, drawn),
        curve_note=escape(remarks(drawn, contents)),
        histograms=histograms(contents, spread),
        histogram_note=escape(_seed_note(contents)),
        gallery_note=escape(_gallery_note(gallery)),
        gallery_hidden="" if gallery else "hidden",
        data="" if gallery is None else _data(gallery),
        version=escape(__version__),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


@cache
def asset(name: str) -> str:
    """A file of this package's ``assets``."""
    return (files("cfr_fast.report") / "assets" / name).read_text(encoding="utf-8")


def embedded(value: Any) -> str:
    """JSON that may stand in a script element: no ``<``, so that nothing in it can end the element."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )


def _data(gallery: Gallery) -> str:
    blocks = [("gallery-facts", gallery.facts)]
    blocks += [(f"pixels-{index}", rows) for index, rows in enumerate(gallery.pixels)]  # type: ignore[misc]
    return "\n".join(
        svg.element("script", embedded(value), type="application/json", id=name) for name, value in blocks
    )


def _colours() -> str:
    """The colours of the methods as properties that ``report.css`` picks for light or dark."""
    pairs = {f"s-{index}": pair for index, pair in enumerate(SERIES)}
    pairs |= {NO_MODEL_SERIES[name]: pair for name, pair in NO_MODEL_COLOURS.items()}
    light = "".join(f"--{name}-light:{pair[0]};--{name}-dark:{pair[1]};" for name, pair in pairs.items())
    rules = "".join(f".{name}{{--own:var(--{name});}}" for name in pairs)
    return f":root{{{light}}}{rules}\n"


def _seed_note(contents: Contents) -> str:
    if len(contents.seeds) < 2:
        return ""
    return f"Thresholds differ from seed to seed; shown is seed {contents.seeds[0]} where it was run."


def _gallery_note(gallery: Gallery | None) -> str:
    if gallery is None:
        return "No maps were kept with these results, so there is no picture to show."
    told = f"{plural(gallery.shots, 'shot')}, seed {gallery.seed}; ordered by score ÷ threshold. "
    if gallery.each is None:
        return told + f"All {gallery.total} test images."
    left = gallery.total - gallery.shown
    return told + (
        f"{gallery.shown} of {gallery.total} test images: the first {gallery.each} of each category and "
        f"defect type; {left} were left out to keep the page small (--images N shows more)."
    )
