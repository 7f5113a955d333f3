"""The loss curve of a run as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cfr_fast.data.files import write_atomically


def write_curve(
    path: Path, history: Sequence[tuple[int, float]], held_out: Sequence[tuple[int, float]], title: str
) -> None:
    """Losses of the steps (mean over about a hundredth of them) and on held-out crops, as PNG.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    window = max(1, len(history) // 100)
    whole = len(history) // window * window
    steps, losses = np.array(history[:whole], dtype=np.float64).reshape(-1, window, 2).mean(axis=1).T
    axes.plot(steps, losses, label=f"training, mean of {window}")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", markersize=3, label="held-out crops")
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())
