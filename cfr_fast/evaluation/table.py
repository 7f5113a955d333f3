"""Evaluation results as tables: on the screen, as CSV, as JSON."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from cfr_fast.evaluation.detector import Verdict
from cfr_fast.evaluation.files import write_csv, write_json
from cfr_fast.evaluation.results import (
    LIMITS,
    METRICS,
    SAMPLED,
    CategoryResult,
    aupro_key,
    numbers,
    summarise,
)

FORMAT = "cfr_fast.evaluation/1"
_SETTING = ("dataset", "category", "method", "shots", "seed", "rule", "training_samples")
_COUNTS = ("normal", "anomalous", "size", "fit_seconds", "predict_seconds")


def summary_table(results: Sequence[CategoryResult]) -> Table:
    """Means over categories (± deviation over seeds), in percent: a pair of lines for each method.

    The column AUPRO says with which thresholds: 99, as papers report it, or exact; the columns after it are
    the limits of the false-positive rate.
    """
    summaries = summarise(results)
    title = (
        escape(", ".join(dict.fromkeys(row.dataset for row in summaries))),
        _plural(len({result.category for result in results}), "category", "categories"),
        _plural(len({result.seed for result in results}), "seed", "seeds"),
        "percent",
    )
    columns = ("shots", "method", "I-AUROC", "P-AUROC", "AUPRO", *(f"{limit:.0%}" for limit in LIMITS))
    # Deviations make the columns wide; with narrower gaps they still fit into 80 characters.
    table = _table(" · ".join(title), columns, gap=0 if any(len(row.seeds) > 1 for row in summaries) else 1)
    for row in summaries:
        cells = {name: _cell(row.mean[name], row.deviation[name]) for name in METRICS}
        head = (f"{row.shots}", escape(row.method), cells["i_auroc"], cells["p_auroc"])
        for thresholds in (SAMPLED, None):
            areas = [cells[aupro_key(limit, thresholds)] for limit in LIMITS]
            table.add_row(*head, "exact" if thresholds is None else f"{thresholds}", *areas)
            head = ("", "", "", "")
        table.add_section()
    return table


def category_table(results: Sequence[CategoryResult]) -> Table:
    """One line for each category, number of shots, seed and method; rates at the calibrated threshold."""
    columns = (
        *("category", "shots\n/seed", "method", "I-\nAUROC", "P-\nAUROC"),
        *(f"AUPRO\n{SAMPLED}", "AUPRO\nexact", "\nfound", "false\nalarm", "fit\ns"),
    )
    table = _table("by category · percent · AUPRO at 30 %", columns)
    shown = ("i_auroc", "p_auroc", aupro_key(0.3, SAMPLED), aupro_key(0.3, None))
    for result in results:
        head, fit = (escape(result.category), f"{result.shots}/{result.seed}"), f"{result.fit_seconds:.1f}"
        for method, row in result.metrics.items():
            cells = [_cell(row[name]) for name in (*shown, "detection_rate", "false_alarm_rate")]
            table.add_row(*head, escape(method), *cells, fit)
            head, fit = ("", ""), ""
    return table


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """One line for each predicted sample; notes have a column where there are any."""
    table = _table("", ("sample", "score", "threshold", "label", "replaced"))
    noted = any(verdict.notes for verdict in verdicts)
    if noted:
        table.add_column("notes")
    for verdict in verdicts:
        label = "[bold red]anomalous[/]" if verdict.label else "normal"
        figures = (f"{verdict.score:.4g}", f"{verdict.threshold:.4g}", label)
        notes = [escape("\n".join(verdict.notes))] if noted else []
        table.add_row(escape(verdict.name), *figures, f"{verdict.replaced_fraction:.1%}", *notes)
    return table


def screen(results: Sequence[CategoryResult]) -> Group:
    """Both tables of an evaluation, for a rich console of one's own."""
    return Group(category_table(results), summary_table(results))


def print_results(results: Sequence[CategoryResult], file: IO[str] | None = None) -> None:
    """Print both tables to `file` (None is standard output); figures are never cut off for want of width."""
    console, tables = Console(file=file), screen(results)
    wanted = console.measure(tables, options=console.options.update(width=1000)).maximum
    console.width = max(console.width, wanted)
    console.print(tables)


def write_results_csv(path: Path | str, results: Sequence[CategoryResult]) -> None:
    """Write one row for each category, shots, seed and method; metrics in [0, 1], empty where undefined."""
    rows = []
    for result in results:
        plain = result.to_json()
        shared = {name: plain[name] for name in (*_SETTING, *_COUNTS) if name != "method"}
        shared["training_samples"] = " ".join(result.training_samples)
        rows += [{**shared, "method": method, **numbers(row)} for method, row in result.metrics.items()]
    write_csv(path, [*_SETTING, *METRICS, *_COUNTS], rows)


def results_json(results: Sequence[CategoryResult]) -> dict[str, Any]:
    """All results with their means and the versions of what computed them, ready for JSON."""
    return {
        "format": FORMAT,
        "versions": {"python": platform.python_version()}
        | {package: _version(package) for package in ("cfr-fast", "torch", "numpy", "scipy")},
        "summary": [row.to_json() for row in summarise(results)],
        "results": [result.to_json() for result in results],
    }


def write_results_json(path: Path | str, results: Sequence[CategoryResult]) -> None:
    """Write `results_json`."""
    write_json(path, results_json(results))


def _table(title: str, columns: Sequence[str], gap: int = 1) -> Table:
    table = Table(
        title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, gap, 0, 0)
    )
    for column in columns:
        left = column in ("category", "method", "sample", "label")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    return table


def _cell(value: float, deviation: float = math.nan) -> str:
    if math.isnan(value):
        return "—"
    spread = "" if math.isnan(deviation) else f"±{100 * deviation:.1f}"
    return f"{100 * value:.1f}{spread}"


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
