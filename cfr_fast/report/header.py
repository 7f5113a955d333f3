"""What stands above the table: what was evaluated, and the four numbers that a reader looks for first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from cfr_fast.report import svg
from cfr_fast.report.contents import Contents
from cfr_fast.report.style import amount, dataset_title, plural


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
            f"{contents.written:%Y-%m-%d}",
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
    for name in ("samples", "preset", "settings", "versions"):
        if record.get(name):
            listed[name] = _plain(record[name])
    listed["last result"] = contents.written.strftime("%Y-%m-%d %H:%M UTC")
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
