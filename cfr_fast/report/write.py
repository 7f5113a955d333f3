"""From a results folder to the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cfr_fast.errors import InputError
from cfr_fast.evaluation.files import write_text
from cfr_fast.evaluation.store import Store
from cfr_fast.report.contents import read
from cfr_fast.report.curves import draw_curves
from cfr_fast.report.figures import write_figures
from cfr_fast.report.gallery import make_gallery
from cfr_fast.report.histograms import draw_histograms
from cfr_fast.report.page import render

PAGE = "index.html"


@dataclass(frozen=True)
class Report:
    """What was written.

    Args:
        page: the HTML file.
        figures: PNG and PDF files.
        shown, total: test images on the page, and those whose maps were kept.
    """

    page: Path
    figures: tuple[Path, ...]
    shown: int
    total: int


def write_report(
    results: Path | str,
    out: Path | str,
    *,
    images: int | None = None,
    methods: Sequence[str] | None = None,
    shots: int | None = None,
) -> Report:
    """Write ``index.html``, which needs no other file and no network, and ``figures/``.

    Args:
        results: folder that `cfr evaluate` left.
        out: folder to write; made when missing.
        images: most test images of each category and defect type; None is as many as keep the page below
            about 30 MB.
        methods: whose maps the images show; None is the first two that were kept.
        shots: of the runs whose maps are shown; None is the largest number kept.

    Raises:
        InputError: no finished run in `results`, a broken file, methods or shots whose maps were not kept.
        OutputError: a file cannot be written.
    """
    folder = Path(results)
    if not folder.is_dir():
        raise InputError(str(folder), "a folder of results", "no folder there")
    contents = read(Store(folder))
    gallery = make_gallery(contents, images, methods, shots)
    drawn, spread = draw_curves(contents), list(draw_histograms(contents))
    page = Path(out) / PAGE
    write_text(page, render(contents, drawn, spread, gallery))
    figures = write_figures(Path(out) / "figures", contents, drawn, spread)
    shown, total = (gallery.shown, gallery.total) if gallery else (0, 0)
    return Report(page, tuple(figures), shown, total)
