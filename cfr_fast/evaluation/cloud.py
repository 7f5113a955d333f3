"""A result in space: the sample's points, coloured, as a PLY file."""

from __future__ import annotations

from pathlib import Path

from cfr_fast.data.ply_write import write_ply
from cfr_fast.data.sample import Sample
from cfr_fast.errors import InputError
from cfr_fast.evaluation.detector import Prediction
from cfr_fast.evaluation.panel import overlay

COLORS = ("score", "photo")


def write_cloud(path: Path | str, sample: Sample, result: Prediction, colors: str = "score") -> None:
    """Write the sample's own points, at its own resolution, with colours and the scalar field ``score``.

    Args:
        path: of the PLY file, laid out as `data.ply_write.write_ply` says; written atomically.
        sample: what was judged.
        result: of the same sample; the scalar field is its `anomaly_map`, in the units of the image score.
        colors: "score" takes those of `overlay`, on the scale that the pixel threshold sets, with the outline
            of what was found; "photo" takes the photo's.

    Raises:
        InputError: unknown `colors`, or a result of another size than the sample.
        OutputError: the file cannot be written.
    """
    if colors not in COLORS:
        raise InputError("colors", f"one of {', '.join(COLORS)}", repr(colors))
    drawn = sample.rgb
    if colors == "score":
        drawn = overlay(sample.rgb, result.anomaly_map, result.mask, result.pixel_threshold)
    write_ply(path, sample.xyz, drawn, {"score": result.anomaly_map})
