"""The table of methods × shots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import groupby

from cfr_fast.evaluation.confidence import LEGEND, MARK, Interval
from cfr_fast.evaluation.published import with_published
from cfr_fast.evaluation.results import NO_MODEL, Summary
from cfr_fast.report import svg
from cfr_fast.report.contents import Contents
from cfr_fast.report.style import COLUMNS, amount

_NOT_ABOVE = LEGEND.removeprefix(f"{MARK} ")
_TOGGLE = "show-intervals"  # `report.css` knows it
_LOWER_IS_BETTER = ("false_alarm_rate",)


def results_table(contents: Contents) -> str:
    """Mean ± deviation in percent; the best of each number of shots is bold, the rest marked where due.

    The mark says that a method is not clearly above "mask only", which knows the outline of the object alone.
    Where there are intervals over test images, a box above the table shows them under the figures.
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
    body = "".join(
        _block(list(rows))
        for _, rows in groupby(with_published(contents.summaries), key=lambda row: row.shots)
    )
    caption = "Percent; mean over categories" + (" ± deviation over seeds" if several else "")
    head = svg.element("thead", svg.element("tr", top) + svg.element("tr", second))
    table = svg.element("table", svg.element("caption", caption) + head + body)
    region = svg.element(
        "div", table, class_="scroll", tabindex=0, role="region", aria_label="Table of results"
    )
    if not any(row.intervals for row in contents.summaries):
        return region
    label = svg.element("label", "95 % intervals over test images", for_=_TOGGLE)
    return f'<input type="checkbox" id="{_TOGGLE}">{label}{region}'


def _block(rows: Sequence[Summary]) -> str:
    """All methods at one number of shots."""
    real = [row for row in rows if row.method not in NO_MODEL and not row.is_published]
    most = max(len(row.categories) for row in rows if not row.is_published)
    lines = []
    for index, row in enumerate(rows):
        head = svg.element("th", f"{row.shots}", scope="rowgroup", rowspan=len(rows)) if index == 0 else ""
        head += svg.element("th", escape(row.label(most)), scope="row")
        cells = "".join(_cell(row, metric, real) for metric in COLUMNS)
        lines.append(
            svg.element(
                "tr",
                head + cells,
                class_=None if row in real else "published" if row.is_published else "mask",
            )
        )
    return svg.element("tbody", "".join(lines))


def _cell(row: Summary, metric: str, real: Sequence[Summary]) -> str:
    value = row.mean[metric]
    if math.isnan(value):
        return svg.element("td", "—")
    content, deviation, mark = amount(value), row.deviation[metric], ""
    if row in real:
        if len(real) > 1 and content == amount(_best(real, metric)):  # ties as they are shown
            content = svg.element("b", content)
        if metric in row.not_above_mask:
            mark = f'<abbr title="{_NOT_ABOVE}" aria-label="{_NOT_ABOVE}">{MARK}</abbr>'
    spread = "" if math.isnan(deviation) else f" <small>± {amount(deviation)}</small>"
    return svg.element("td", content + spread + mark + _ends(row.intervals.get(metric)), data_value=value)


def _ends(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return svg.element("small", f"{amount(interval[0])} to {amount(interval[1])}", class_="interval")


def _best(rows: Sequence[Summary], metric: str) -> float:
    known = [row.mean[metric] for row in rows if not math.isnan(row.mean[metric])]
    return min(known) if metric in _LOWER_IS_BETTER else max(known)
