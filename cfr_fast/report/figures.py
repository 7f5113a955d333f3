"""The charts as files for a paper or a talk: PNG and PDF."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cfr_fast.data.files import write_atomically
from cfr_fast.evaluation.store import slug
from cfr_fast.progress import track
from cfr_fast.report.bar_chart import spread
from cfr_fast.report.contents import Contents
from cfr_fast.report.curves import Curve
from cfr_fast.report.histograms import Histogram
from cfr_fast.report.style import CHARTED, colour, plural

KINDS = ("png", "pdf")
_DPI = 160


def write_figures(
    folder: Path, contents: Contents, drawn: Sequence[Curve], spreads: Sequence[Histogram]
) -> list[Path]:
    """Write ``bars_K-shot``, ``aupro_K-shot`` and ``scores_METHOD_K-shot``, each as PNG and PDF.

    Returns:
        The files.

    Raises:
        OutputError: one cannot be written.
    """
    total = len(contents.shots) * (2 + len(contents.methods))
    written = []
    for name, figure in track(_figures(contents, drawn, spreads), "Figures", total):
        for kind in KINDS:
            content = io.BytesIO()
            # Without a date the same results give the same bytes.
            date = {"CreationDate": None} if kind == "pdf" else {}
            figure.savefig(content, format=kind, dpi=_DPI, bbox_inches="tight", metadata=date)
            written.append(folder / f"{name}.{kind}")
            write_atomically(written[-1], content.getvalue())
    return written


def _figures(
    contents: Contents, drawn: Sequence[Curve], spreads: Sequence[Histogram]
) -> Iterator[tuple[str, Figure]]:
    for shots in contents.shots:
        yield f"bars_{shots}-shot", _bars(contents, shots)
        means = [curve for curve in drawn if curve.shots == shots and curve.category is None]
        if means:
            yield f"aupro_{shots}-shot", _curves(contents, means)
        for method in contents.methods:
            group = [
                entry for entry in spreads if (entry.run.key.method, entry.run.key.shots) == (method, shots)
            ]
            if group:
                yield f"scores_{slug(method)}_{shots}-shot", _scores(group)


def _bars(contents: Contents, shots: int) -> Figure:
    """Categories across, a bar for each method; one panel a metric."""
    metrics = list(CHARTED)
    figure = _figure(max(6.0, 1.5 + 1.1 * len(contents.categories)), 2.3 * len(metrics))
    methods = contents.rows
    width = 0.82 / len(methods)
    for row, metric in enumerate(metrics):
        axes = figure.add_subplot(len(metrics), 1, row + 1)
        for place, category in enumerate(contents.categories):
            for method, mean, deviation in spread(contents, metric, shots, category):
                at = place + (methods.index(method) - (len(methods) - 1) / 2) * width
                error = None if math.isnan(deviation) else 100 * deviation
                axes.bar(
                    at,
                    100 * mean,
                    width * 0.9,
                    yerr=error,
                    capsize=2,
                    color=colour(method, contents.methods)[0],
                    error_kw={"lw": 1},
                    label=method,
                )
        axes.set_xticks(range(len(contents.categories)), contents.categories, fontsize=8)
        axes.set_ylabel(f"{CHARTED[metric]} in %", fontsize=8)
        axes.set_ylim(0, 100)
        _calm(axes)
    _legend(figure)
    figure.suptitle(plural(shots, "shot"), fontsize=10)
    return figure


def _curves(contents: Contents, means: Sequence[Curve]) -> Figure:
    figure = _figure(5.2, 3.6)
    axes = figure.add_subplot()
    for place, curve in enumerate(means):
        own = colour(curve.method, contents.methods)[0]
        style = "-" if curve.from_maps else "o--"
        limits = 100 * np.array(curve.limits)
        axes.plot(
            *(limits, 100 * curve.values, style),
            color=own,
            label=curve.method,
            markersize=3,
            zorder=3 - place / 100,  # the first method lies on top
        )
    axes.set_xlim(0, 50)
    axes.set_ylim(0, 100)
    axes.set_xlabel("limit of the false-positive rate in %")
    axes.set_ylabel("AUPRO in %, exact")
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(f"mean over categories, {plural(means[0].shots, 'shot')}", fontsize=10)
    _calm(axes)
    return figure


def _scores(group: Sequence[Histogram]) -> Figure:
    columns = min(4, len(group))
    rows = math.ceil(len(group) / columns)
    figure = _figure(2.6 * columns, 2.0 * rows)
    for index, entry in enumerate(group):
        axes = figure.add_subplot(rows, columns, index + 1)
        for counts, sign, own, name in (
            (entry.normal, 1, "#0b7a66", "good"),
            (entry.anomalous, -1, "#b8480b", "anomalous"),
        ):
            axes.stairs(sign * counts, entry.edges, fill=True, color=own, label=name)
        axes.axhline(0, color="black", lw=0.6)
        if not math.isnan(entry.threshold):
            axes.axvline(entry.threshold, color="black", lw=1, ls="--", label="threshold")
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.tick_params(labelsize=7)
        axes.set_title(entry.run.key.category, fontsize=8)
        _calm(axes)
    _legend(figure)
    key = group[0].run.key
    figure.suptitle(
        f"{key.method}, {plural(key.shots, 'shot')}, seed {key.seed}: images by score", fontsize=10
    )
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _legend(figure: Figure) -> None:
    """One for all panels, below them."""
    named: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    figure.legend(
        list(named.values()),
        list(named),
        loc="outside lower center",
        ncols=min(4, len(named)),
        frameon=False,
        fontsize=8,
    )


def _calm(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", lw=0.4, color="0.85")
