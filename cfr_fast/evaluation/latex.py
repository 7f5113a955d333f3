"""The table of means as LaTeX, ready to be pasted into a paper (package ``booktabs``)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cfr_fast.evaluation.confidence import LEGEND, MARK, RULE
from cfr_fast.evaluation.published import with_published
from cfr_fast.evaluation.results import LIMITS, SAMPLED, CategoryResult, Summary, aupro_key, summarise

_SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "θ": r"$\theta$",
    MARK: r"$^{\circ}$",
}


def latex_table(results: Sequence[CategoryResult]) -> str:
    """Means over categories, in percent, ± the sample standard deviation over seeds.

    A row for each number of shots and method; columns for I-AUROC, P-AUROC, and AUPRO at every limit of the
    false-positive rate, with 99 thresholds and exact. A method that lacks categories says how many it has. A
    circle marks figures that are not clearly above the mask alone; the line below the table says so.
    """
    found = summarise(results)
    most = max((len(row.categories) for row in found), default=0)
    limits = " & ".join(rf"{100 * limit:g}\,\%" for limit in LIMITS)
    count, first = len(LIMITS), 5
    rules = " ".join(rf"\cmidrule(lr){{{start}-{start + count - 1}}}" for start in (first, first + count))
    lines = [
        rf"\begin{{tabular}}{{rl{'r' * (2 + 2 * count)}}}",
        r"\toprule",
        rf" & & & & \multicolumn{{{count}}}{{c}}{{AUPRO, {SAMPLED} thresholds}}"
        rf" & \multicolumn{{{count}}}{{c}}{{AUPRO, exact}} \\",
        rules,
        rf"Shots & Method & I-AUROC & P-AUROC & {limits} & {limits} \\",
    ]
    shots = None
    for row in with_published(found):
        if (row.dataset, row.shots) != shots:
            lines.append(r"\midrule")
        head = "" if (row.dataset, row.shots) == shots else str(row.shots)
        shots = (row.dataset, row.shots)
        lines.append(rf"{head} & {_escaped(row.label(most))} & {' & '.join(_cells(row))} \\")
    lines.append(r"\bottomrule")
    if any(row.not_above_mask for row in found):
        legend = rf"\footnotesize {_escaped(f'{LEGEND}: {RULE}')}"
        lines.append(rf"\multicolumn{{{4 + 2 * count}}}{{l}}{{{legend}}} \\")
    return "\n".join([*lines, r"\end{tabular}", ""])


def _cells(row: Summary) -> list[str]:
    areas = [aupro_key(limit, thresholds) for thresholds in (SAMPLED, None) for limit in LIMITS]
    return [
        _number(row.mean[name], row.deviation[name], name in row.not_above_mask)
        for name in ("i_auroc", "p_auroc", *areas)
    ]


def _number(mean: float, deviation: float, marked: bool) -> str:
    if math.isnan(mean):
        return "--"
    spread = "" if math.isnan(deviation) else rf"\,$\pm$\,{100 * deviation:.1f}"
    return f"{100 * mean:.1f}{spread}" + (_SPECIAL[MARK] if marked else "")


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(sign, sign) for sign in text)
