"""The pictures of one evaluation, written as its results come."""

from __future__ import annotations

import re
from pathlib import Path

from cfr_fast.data.sample import Sample
from cfr_fast.evaluation.colors import RGB
from cfr_fast.evaluation.detector import Prediction
from cfr_fast.evaluation.files import write_png
from cfr_fast.evaluation.panel import contact_sheet, panel


class Gallery:
    """A folder with a panel for every image and, once finished, a contact sheet of all of them.

    Args:
        folder: made when the first picture is written.
        side: longest side of each picture inside a panel, in pixels; on the sheet at most 160.
    """

    def __init__(self, folder: Path, side: int = 320) -> None:
        self.folder = folder
        self.side = side
        self._small: list[RGB] = []

    def add(self, sample: Sample, result: Prediction) -> None:
        """Write the panel of one sample.

        Raises:
            OutputError: the picture cannot be written.
        """
        write_png(self.folder / f"{file_stem(sample.name)}.png", panel(sample, result, self.side))
        self._small.append(panel(sample, result, min(self.side, 160)))

    def finish(self) -> None:
        """Write ``contact_sheet.png``; nothing where no picture was added."""
        if self._small:
            write_png(self.folder / "contact_sheet.png", contact_sheet(self._small))


def file_stem(name: str) -> str:
    """A file name, without ending, for a sample's name: ``test/bent/003`` → ``test_bent_003``."""
    return re.sub(r"[^\w.\-]+", "_", name).strip("._") or "sample"
