"""Evaluation results as tables: on the screen, as CSV, as JSON."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from cfr_fast.evaluation.confidence import LEGEND, MARK, RULE, Interval
from cfr_fast.evaluation.detector import Verdict
from cfr_fast.evaluation.files import write_csv, write_json, write_text
from cfr_fast.evaluation.latex import latex_table
from cfr_fast.evaluation.published import with_published
from cfr_fast.evaluation.record import versions
from cfr_fast.evaluation.results import (
    LIMITS,
    METRICS,
    NO_MODEL,
    SAMPLED,
    WITH_INTERVAL,
    CategoryResult,
    aupro_key,
    numbers,
    rows_of,
    summarise,
)

FORMAT = "cfr_fast.evaluation/1"
_SETTING = ("dataset", "category", "method", "shots", "seed", "rule", "training_samples")
_COUNTS = ("normal", "anomalous", "size", "fit_seconds", "predict_seconds", "skipped")
_ENDS = [f"{metric}_{end}" for metric in WITH_INTERVAL for end in ("low", "high")]
MOST_LINES = 60  # of the table by category on a screen


def summary_table(results: Sequence[CategoryResult]) -> Table:
    """Means over categories (± deviation over seeds), in percent: a pair of lines for each method.

    The last columns are AUPRO up to each limit of the false-positive rate: with 99 thresholds, as papers
    report it, in the first line, and exact in the second. `MARK` is at figures that are not clearly above the
    mask alone.
    """
    found = summarise(results)
    summaries = with_published(found)
    title = (
        escape(", ".join(dict.fromkeys(row.dataset for row in summaries))),
        _plural(len({result.category for result in results}), "category", "categories"),
        _plural(len({result.seed for result in results}), "seed", "seeds"),
        f"percent · AUPRO {SAMPLED}, exact",
    )
    columns = ("shots", "method", "I-AUROC", "P-AUROC", *(f"AUPRO\n{limit:.0%}" for limit in LIMITS))
    # Deviations make the columns wide; with narrower gaps they still fit into 80 characters.
    table = _table(" · ".join(title), columns, gap=0 if any(len(row.seeds) > 1 for row in summaries) else 1)
    most = max((len(row.categories) for row in found), default=0)
    for row in summaries:
        cells = {
            name: _cell(row.mean[name], row.deviation[name], name in row.not_above_mask) for name in METRICS
        }
        head = (f"{row.shots}", escape(row.label(most)), cells["i_auroc"], cells["p_auroc"])
        for thresholds in (SAMPLED,) if row.is_published else (SAMPLED, None):
            areas = [cells[aupro_key(limit, thresholds)] for limit in LIMITS]
            table.add_row(*head, *areas)
            head = ("", "  exact", "", "")
        table.add_section()
    return table


def interval_table(results: Sequence[CategoryResult]) -> Table | None:
    """The intervals of the means over resampled test images, in percent; None where no figure has one."""
    rows = [row for row in summarise(results) if row.intervals]
    if not rows:
        return None
    shown = {"I-AUROC": "i_auroc", "P-AUROC": "p_auroc"}
    shown |= {f"AUPRO\n{limit:.0%}": aupro_key(limit, None) for limit in (LIMITS[0], LIMITS[-1])}
    table = _table("95 % intervals over test images · percent · AUPRO exact", ("shots", "method", *shown))
    for row in rows:
        cells = [_ends(row.intervals.get(metric)) for metric in shown.values()]
        table.add_row(f"{row.shots}", escape(row.method), *cells)
    return table


def category_table(results: Sequence[CategoryResult]) -> Table:
    """One line for each category, number of shots, seed and method; rates at the calibrated threshold."""
    columns = (
        *("category", "shots\n/seed", "method", "I-\nAUROC", "P-\nAUROC"),
        *(f"AUPRO\n{SAMPLED}", "AUPRO\nexact", "\nfound", "false\nalarm", "fit\ns"),
    )
    # Narrow gaps where marks make columns wider.
    lines = rows_of(results)
    marked = any(line.not_above_mask for line in lines)
    table = _table("by category · percent · AUPRO at 30 %", columns, gap=0 if marked else 1)
    shown = ("i_auroc", "p_auroc", aupro_key(0.3, SAMPLED), aupro_key(0.3, None))
    last: tuple[str, str] | None = None
    for line in lines:
        result, low = line.result, line.not_above_mask
        head = escape(result.category), f"{result.shots}/{result.seed}"
        metrics = (*shown, "detection_rate", "false_alarm_rate")
        cells = [_cell(line.metrics[name], math.nan, name in low) for name in metrics]
        fit = "" if line.method in NO_MODEL else f"{result.fit_seconds:.1f}"
        table.add_row(*(("", "") if head == last else head), escape(line.method), *cells, fit)
        last = head
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
    """The tables of an evaluation, for a rich console of one's own; notes on marks and what was left out."""
    return _tables(results, by_category=len(rows_of(results)) <= MOST_LINES)


def _tables(results: Sequence[CategoryResult], by_category: bool) -> Group:
    parts: list[RenderableType] = [category_table(results)] if by_category else []
    parts.append(summary_table(results))
    intervals = interval_table(results)
    if intervals is not None:
        parts.append(intervals)
    marked = [row.not_above_mask for row in summarise(results)]
    marked += [row.not_above_mask for row in rows_of(results) if by_category]
    if any(marked):
        parts.append(f"{LEGEND}:\n{RULE}")
    return Group(*parts, *notes(results))


def notes(results: Sequence[CategoryResult]) -> list[str]:
    """Samples that were skipped, if any: one line for each category."""
    skipped: dict[str, dict[str, None]] = {}
    for result in results:
        skipped.setdefault(result.category, {}).update(dict.fromkeys(result.skipped))
    return [
        escape(
            f"{category}: {_plural(len(names), 'sample', 'samples')} could not be read: {', '.join(names)}"
        )
        for category, names in skipped.items()
        if names
    ]


def print_results(results: Sequence[CategoryResult], file: IO[str] | None = None) -> None:
    """Print `screen` to `file` (None is standard output); figures are never cut off for want of width."""
    _print(screen(results), file)


def write_tables(folder: Path, results: Sequence[CategoryResult]) -> None:
    """Write ``results.txt`` (all tables), ``results.csv``, ``results.json`` and ``results.tex``.

    Raises:
        OutputError: one cannot be written.
    """
    text = io.StringIO()
    _print(_tables(results, by_category=True), text)
    write_text(folder / "results.txt", text.getvalue())
    write_results_csv(folder / "results.csv", results)
    write_results_json(folder / "results.json", results)
    write_text(folder / "results.tex", latex_table(results))


def _print(tables: Group, file: IO[str] | None) -> None:
    console = Console(file=file)
    wanted = console.measure(tables, options=console.options.update(width=1000)).maximum
    console.width = max(console.width, wanted)
    console.print(tables)


def write_results_csv(path: Path | str, results: Sequence[CategoryResult]) -> None:
    """Write one row for each category, shots, seed and method; metrics in [0, 1], empty where undefined.

    The ends of the intervals are ``METRIC_low`` and ``METRIC_high``; ``not_above_mask`` names the metrics in
    which a method is not clearly above the mask alone.
    """
    rows = []
    for line in rows_of(results):
        plain = line.result.to_json()
        shared = {name: plain[name] for name in (*_SETTING, *_COUNTS) if name != "method"}
        shared["training_samples"] = " ".join(line.result.training_samples)
        own = {
            "method": line.method,
            **numbers(line.metrics),
            "not_above_mask": " ".join(line.not_above_mask),
        }
        for metric in WITH_INTERVAL:
            _, ends = line.figure(metric)
            if ends is not None:
                own |= {f"{metric}_low": ends[0], f"{metric}_high": ends[1]}
        rows.append({**shared, "skipped": len(line.result.skipped), **own})
    write_csv(path, [*_SETTING, *METRICS, *_ENDS, "not_above_mask", *_COUNTS], rows)


def results_json(results: Sequence[CategoryResult]) -> dict[str, Any]:
    """All results with their means and the versions of what computed them, ready for JSON."""
    summaries = with_published(summarise(results))
    return {
        "format": FORMAT,
        "versions": versions(),
        "summary": [row.to_json() for row in summaries if not row.is_published],
        "published": [row.to_json() for row in summaries if row.is_published],
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


def _cell(value: float, deviation: float = math.nan, marked: bool = False) -> str:
    if math.isnan(value):
        return "—"
    spread = "" if math.isnan(deviation) else f"±{100 * deviation:.1f}"
    return f"{100 * value:.1f}{spread}" + (MARK if marked else "")


def _ends(interval: Interval | None) -> str:
    return "—" if interval is None else f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}"


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
