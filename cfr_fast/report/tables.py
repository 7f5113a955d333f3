"""The table of methods × shots, and what stands above it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from cfr_fast.evaluation.results import MASK_ONLY, Summary
from cfr_fast.report import svg
from cfr_fast.report.contents import Contents
from cfr_fast.report.style import COLUMNS, amount, dataset_title, plural

_NOT_ABOVE = "does not beat the mask-only row"
_LOWER_IS_BETTER = ("false_alarm_rate",)


def results_table(contents: Contents) -> str:
    """Mean ± deviation in percent; the best of each number of shots is bold, the rest marked where due.

    The mark says that a method is not above "mask only", which knows the outline of the object alone.
    """
    several = any(len(row.seeds) > 1 for row in contents.summaries)
    groups = groupby(COLUMNS.items(), key=lambda item: item[1][0])
    sizes = [(name, len(list(members))) for name, members in groups]
    top = svg.element("th", "shots", rowspan=2, scope="col") + svg.element(
        "th", "method", rowspan=2, scope="col"
    )
    top += "".join(
        svg.element("th", escape(name), colspan=size, scope="colgroup", class_="group")
        if name
        else "".join(
            svg.element("th", label, rowspan=2, scope="col") for group, label in COLUMNS.values() if not group
        )
        for name, size in sizes
    )
    second = "".join(svg.element("th", label, scope="col") for group, label in COLUMNS.values() if group)
    body = "".join(_block(list(rows)) for _, rows in groupby(contents.summaries, key=lambda row: row.shots))
    caption = "Percent; mean over categories" + (" ± deviation over seeds" if several else "")
    head = svg.element("thead", svg.element("tr", top) + svg.element("tr", second))
    table = svg.element("table", svg.element("caption", caption) + head + body)
    return svg.element(
        "div", table, class_="scroll", tabindex=0, role="region", aria_label="Table of results"
    )


def _block(rows: Sequence[Summary]) -> str:
    """All methods at one number of shots."""
    floor = next((row.mean for row in rows if row.method == MASK_ONLY), {})
    real = [row for row in rows if row.method != MASK_ONLY]
    lines = []
    for index, row in enumerate(rows):
        head = svg.element("th", f"{row.shots}", scope="rowgroup", rowspan=len(rows)) if index == 0 else ""
        head += svg.element("th", escape(row.method), scope="row")
        cells = "".join(_cell(row, metric, real, floor) for metric in COLUMNS)
        lines.append(svg.element("tr", head + cells, class_="mask" if row.method == MASK_ONLY else None))
    return svg.element("tbody", "".join(lines))


def _cell(row: Summary, metric: str, real: Sequence[Summary], floor: Mapping[str, float]) -> str:
    value = row.mean[metric]
    if math.isnan(value):
        return svg.element("td", "—")
    content, deviation, mark = amount(value), row.deviation[metric], ""
    if row.method != MASK_ONLY:
        if len(real) > 1 and value == _best(real, metric):
            content = svg.element("b", content)
        if value <= floor.get(metric, math.nan):
            mark = f' <abbr title="{_NOT_ABOVE}" aria-label="{_NOT_ABOVE}">▾</abbr>'
    spread = "" if math.isnan(deviation) else f" <small>± {amount(deviation)}</small>"
    return svg.element("td", content + spread + mark, data_value=value)


def _best(rows: Sequence[Summary], metric: str) -> float:
    known = [row.mean[metric] for row in rows if not math.isnan(row.mean[metric])]
    return min(known) if metric in _LOWER_IS_BETTER else max(known)


def figures_of_merit(contents: Contents) -> str:
    """The four numbers that a reader looks for first, of the first method at its largest number of shots."""
    shots = max(run.key.shots for run in contents.runs if run.key.method == contents.methods[0])
    (row,) = (row for row in contents.summaries if row.method == contents.methods[0] and row.shots == shots)
    told = (
        ("detection_rate", "of the defective parts are found", ""),
        ("false_alarm_rate", "of the good parts raise a false alarm", ""),
        ("i_auroc", "I-AUROC", "how well scores tell defective from good parts; 50 is chance"),
        ("aupro_30_exact", "AUPRO 30 %", "how well maps cover the defects; exact"),
    )
    cards = "".join(
        svg.element(
            "li",
            svg.element("strong", amount(row.mean[metric]) + (" %" if not more else ""))
            + svg.element("span", label)
            + (svg.element("small", more) if more else ""),
        )
        for metric, label, more in told
        if not math.isnan(row.mean[metric])
    )
    head = f"{escape(row.method)}, {plural(shots, 'shot')}"
    return svg.element("p", head, class_="merit-of") + svg.element("ul", cards, class_="merit")


def subtitle(contents: Contents) -> str:
    """What was evaluated, in one line."""
    images = {run.key.category: run.result for run in contents.runs}.values()
    return " · ".join(
        (
            plural(len(contents.categories), "category", "categories"),
            f"{sum(r.normal for r in images)} good and {sum(r.anomalous for r in images)} anomalous images",
            f"shots {', '.join(map(str, contents.shots))}",
            f"seeds {', '.join(map(str, contents.seeds))}",
        )
    )


def facts(contents: Contents) -> str:
    """What was evaluated, as a list of terms."""
    first, record = contents.runs[0].result, contents.record
    rules = dict.fromkeys(run.result.rule for run in contents.runs)
    skipped = dict.fromkeys(
        f"{run.key.category}: {name}" for run in contents.runs for name in run.result.skipped
    )
    images = {run.key.category: run.result for run in contents.runs}.values()
    listed: dict[str, str] = {
        "dataset": dataset_title(contents.dataset),
        plural(len(contents.categories), "category", "categories").split()[1]: ", ".join(contents.categories),
        "test images": f"{sum(r.normal for r in images)} good, {sum(r.anomalous for r in images)} anomalous",
        "methods": ", ".join(contents.methods),
        "shots": ", ".join(map(str, contents.shots)),
        "seeds": ", ".join(map(str, contents.seeds)),
        "choice of shots": ", ".join(rules),
        "maps": f"{first.size} × {first.size} pixels",
    }
    if skipped:
        listed["left out, unreadable"] = ", ".join(skipped)
    for name in ("preset", "versions", "settings", "started", "finished", "date"):
        if record.get(name):
            listed[{"started": "run of"}.get(name, name)] = _plain(record[name])
    terms = "".join(
        svg.element("div", svg.element("dt", escape(name)) + svg.element("dd", escape(value)))
        for name, value in listed.items()
    )
    return svg.element("dl", terms)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items() if entry is not None)
    if isinstance(value, list | tuple):
        return ", ".join(_plain(entry) for entry in value)
    return str(value)
