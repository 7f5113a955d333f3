"""The paper's ablation: retrieval on and off, θ, the size of the memory bank, and the number of shots."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cfr_fast.data.files import write_atomically
from cfr_fast.errors import InputError
from cfr_fast.evaluation.methods import Method
from cfr_fast.evaluation.results import CategoryResult, Summary, aupro_key, summarise

GIVEN = (0.1, 0.2, 0.3, 0.4)  # θ around the paper's
CALIBRATED = (0.002, 0.005, 0.01, 0.02, 0.05)  # around what calibration finds on hand-made features
BASE, WITHOUT = "CFR", "no retrieval"
_THETA, _BANK = "theta ", "bank "
_SHOWN = {"I-AUROC": "i_auroc", "AUPRO at 30 %, exact": aupro_key(0.3, None)}


def ablation_methods(thetas: Sequence[float], banks: Sequence[float]) -> list[Method]:
    """CFR as given, without replacement, and with every θ and share of rows in the bank in its place.

    Args:
        thetas: cosine distances, ≥ 0; may be empty.
        banks: shares in (0, 1]; may be empty.

    Raises:
        InputError: one outside its range.
    """
    for theta in thetas:
        if not 0 <= theta < math.inf:
            raise InputError("--theta", "cosine distances ≥ 0", f"{theta:g}")
    for bank in banks:
        if not 0 < bank <= 1:
            raise InputError("--bank", "shares in (0, 1]", f"{bank:g}")
    return [
        Method(BASE),
        Method(WITHOUT, {"replacement": "none"}),
        *(Method(f"{_THETA}{theta:g}", {"theta": theta}) for theta in sorted(set(thetas))),
        *(Method(f"{_BANK}{100 * bank:g}%", {"coreset": bank}) for bank in sorted(set(banks))),
    ]


def ablation_figure(results: Sequence[CategoryResult]) -> Figure:
    """Two rows, I-AUROC and AUPRO, of three pictures: retrieval, θ, bank; a line for each number of shots.

    Means over categories; bars are the standard deviation over seeds. A dotted line is CFR as given.
    """
    rows = [row for row in summarise(results) if not row.is_published]
    shots = sorted({row.shots for row in rows})
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    axes = figure.subplots(len(_SHOWN), 3, sharey="row", squeeze=False)
    for line, (label, metric) in zip(axes, _SHOWN.items(), strict=True):
        for count in shots:
            color = f"C{shots.index(count)}"
            own = [row for row in rows if row.shots == count]
            pair = [(place, row) for place, name in enumerate((WITHOUT, BASE)) for row in _named(own, name)]
            _draw(line[0], pair, metric, color, f"{count} shot")
            _draw(line[1], _series(own, _THETA), metric, color)
            _draw(line[2], _series(own, _BANK), metric, color)
            for base in _named(own, BASE):
                for axis in line[1:]:
                    axis.axhline(
                        100 * base.mean[metric],
                        color=color,
                        linestyle=":",
                        linewidth=1,
                        label=f"as given, {count} shot",
                    )
        line[0].set_ylabel(f"{label} / %")
        line[0].set_xticks([0, 1], [WITHOUT, BASE])
        line[0].set_xlim(-0.4, 1.4)
        for axis in line:
            axis.grid(alpha=0.3)
    axes[0][0].legend(frameon=False)
    if shots:
        axes[0][1].legend(frameon=False, fontsize="small")
    for axis, label in zip(axes[-1], ("retrieval", "θ", "rows kept in the bank / %"), strict=True):
        axis.set_xlabel(label)
    return figure


def write_figure(folder: Path, results: Sequence[CategoryResult]) -> None:
    """Write ``ablation.png`` and ``ablation.pdf``.

    Raises:
        OutputError: one cannot be written.
    """
    figure = ablation_figure(results)
    for ending in ("png", "pdf"):
        content = io.BytesIO()
        metadata = {"CreationDate": None} if ending == "pdf" else None
        figure.savefig(content, format=ending, dpi=200, metadata=metadata)
        write_atomically(folder / f"ablation.{ending}", content.getvalue())


def _named(rows: Sequence[Summary], name: str) -> list[Summary]:
    return [row for row in rows if row.method == name]


def _series(rows: Sequence[Summary], prefix: str) -> list[tuple[float, Summary]]:
    """Rows of one sweep by their value, ascending."""
    found = [
        (float(row.method.removeprefix(prefix).rstrip("%")), row)
        for row in rows
        if row.method.startswith(prefix)
    ]
    return sorted(found, key=lambda pair: pair[0])


def _draw(
    axis: Axes, points: Sequence[tuple[float, Summary]], metric: str, color: str, label: str | None = None
) -> None:
    x = [value for value, _ in points]
    y = [100 * row.mean[metric] for _, row in points]
    spread = [0.0 if math.isnan(row.deviation[metric]) else 100 * row.deviation[metric] for _, row in points]
    axis.errorbar(x, y, spread, color=color, marker="o", markersize=4, capsize=2, label=label)
