"""``cfr report``: results as a page."""

from __future__ import annotations

import argparse
import json

from rich.console import Console

from cfr_fast.progress import display


def report(options: argparse.Namespace) -> None:
    """``cfr report``."""
    from cfr_fast.report import write_report

    with display():
        written = write_report(
            options.results,
            options.out,
            images=options.images,
            methods=options.methods,
            shots=options.shots,
        )
    if options.json:
        content = {
            "page": str(written.page),
            "figures": [str(path) for path in written.figures],
            "images_shown": written.shown,
            "images": written.total,
        }
        print(json.dumps(content, indent=2))
        return
    images = f"{written.shown} of {written.total} test images" if written.total else "no maps were kept"
    size = written.page.stat().st_size / 1e6
    Console(soft_wrap=True).print(
        f"{written.page}: {images}, {size:.1f} MB; opens in any browser, without a network\n"
        f"{len(written.figures)} figures are in {written.page.parent / 'figures'}",
        highlight=False,
        markup=False,
    )
