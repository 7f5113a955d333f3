r"""How well extractors tell defects, by the plainest detector: ``python -m tools.measure_extractors --help``.

Features on a 56×56 grid over the object are standardised and half whitened by the shots (principal components
over the fourth root of their variances), normalised, and joined for photo and shape. A cell's score is its
cosine distance to the nearest cell of the shots in four orientations; maps are smoothed and carried a cell or
two beyond measured points, and the image score is the map's maximum. That is PatchCore in little: minutes for
an extractor and a set, to choose networks by. What a user gets is measured by ``cfr evaluate``, for example

    cfr evaluate --data SET --shots 1 4 --seeds 42 0 1 --crop --rgb embedded --xyz normals:embedded \
        --set 'rgb_options={"weights": "FILE"}' 'xyz_options={"weights": "FILE"}' -o results
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, normalize

from cfr_fast.data import Frame, Sample, detect_dataset, frame_of, list_categories, load_category, prepare
from cfr_fast.errors import CFRError, InputError
from cfr_fast.evaluation import aupro, choose_shots, image_auroc
from cfr_fast.evaluation.files import write_json
from cfr_fast.extractors import Extractor, create_extractor
from cfr_fast.progress import display, track

CELLS = 56
SIZE = 224
COMPONENTS = 64
ROWS = 3000
"""Most cells of the shots that are remembered."""
SMOOTHING = 0.8  # cells
Row = dict[str, Any]
MEASURES = ("I-AUROC", "AUPRO 30 %", "AUPRO 1 %")


@dataclass(frozen=True)
class Seen:
    """What one view shows: cells [3136, D] of both kinds, and which of them count."""

    cells: dict[str, Tensor]
    valid: Tensor


@dataclass(frozen=True)
class Subject:
    """A pair of extractors under a name for the table."""

    name: str
    rgb: Extractor
    xyz: Extractor


def subjects(classic: bool, teacher: Path | None, embedded: Sequence[Path]) -> list[Subject]:
    """The pairs that the options name."""
    made = []
    if classic:
        made.append(_subject("classic", "classic", "classic", {}))
    if teacher is not None:
        options = {
            "weights": str(teacher),
            "layers": ["blocks.2", "blocks.3"],
            "model_kwargs": {"pad_type": "same"},
            "mean": 0.5,
            "std": 0.5,
        }
        name = "mobilenetv2_100"
        made.append(_subject(f"timm:{name}", f"timm:{name}", f"normals:{name}", options))
    for path in embedded:
        options = {"weights": str(path)}
        name = path.parent.name if path.is_file() else str(path)
        made.append(_subject(f"embedded {name}", "embedded", "normals:embedded", options))
    if not made:
        raise InputError("extractors", "at least one of --classic, --teacher, --embedded", "none")
    return made


def look(subject: Subject, frame: Frame) -> Seen:
    """The cells of one frame."""
    cells = {}
    valid = torch.ones(CELLS * CELLS, dtype=torch.bool)
    for extractor in (subject.rgb, subject.xyz):
        field = extractor.extract(frame, SIZE)
        dense = field.dense().T.reshape(1, -1, SIZE, SIZE)
        known = field.valid.float().reshape(1, 1, SIZE, SIZE)
        share = avg_pool2d(known, SIZE // CELLS)
        mean = avg_pool2d(dense * known, SIZE // CELLS) / share.clamp(min=1e-6)
        cells[extractor.role] = mean.flatten(2)[0].T.contiguous()
        valid &= share.flatten() >= 0.25
    return Seen(cells, valid)


def turned(frame: Frame, quarters: int) -> Frame:
    """The part turned about the line of sight by quarters of a turn, pixels and coordinates."""
    rgb, xyz = frame.rgb, frame.xyz
    for _ in range(quarters):
        rgb, xyz = np.rot90(rgb), np.rot90(xyz)
        xyz = np.stack([xyz[..., 1], -xyz[..., 0], xyz[..., 2]], axis=2)
    return Frame(np.ascontiguousarray(rgb), np.ascontiguousarray(xyz), 0, 0, frame.source_shape)


class Memory:
    """The cells of the shots, conditioned by themselves."""

    def __init__(self, views: Sequence[Seen], seed: int) -> None:
        self._conditioning = {
            kind: _conditioning(torch.cat([view.cells[kind][view.valid] for view in views]))
            for kind in views[0].cells
        }
        rows = torch.cat([self._keys(view)[view.valid] for view in views])
        chosen = np.random.default_rng(seed).permutation(len(rows))[:ROWS]
        self._rows = rows[torch.from_numpy(chosen)]

    def map(self, seen: Seen) -> NDArray[np.float32]:
        """Cosine distances to the nearest row, smoothed and carried a little beyond: float32 [SIZE, SIZE]."""
        nearest = (self._keys(seen) @ self._rows.T).max(dim=1).values
        distance, valid = (
            values.reshape(CELLS, CELLS).numpy()
            for values in ((1 - nearest) * seen.valid, seen.valid.float())
        )
        share = gaussian_filter(valid, SMOOTHING)
        smooth = gaussian_filter(distance, SMOOTHING) / np.maximum(share, 1e-6) * (share > 0.01)
        pixels = interpolate(torch.from_numpy(smooth)[None, None], (SIZE, SIZE), mode="bilinear")
        return np.asarray(pixels[0, 0].numpy())

    def _keys(self, seen: Seen) -> Tensor:
        """Joined unit vectors: [3136, 2 · COMPONENTS], whose products are mean cosines."""
        parts = []
        for kind, (mean, deviation, axes) in self._conditioning.items():
            parts.append(normalize((seen.cells[kind] - mean) / deviation @ axes, dim=1))
        keys: Tensor = torch.cat(parts, dim=1) / len(parts) ** 0.5
        return keys


def _conditioning(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, deviation, and principal axes over the fourth root of their variances [D, components]."""
    mean, deviation = rows.mean(dim=0), rows.std(dim=0).clamp(min=1e-6)
    standard = (rows - mean) / deviation
    variance, axes = torch.linalg.eigh(standard.T @ standard / len(rows))
    kept = variance > 1e-4 * variance[-1]
    variance, axes = variance[kept][-COMPONENTS:], axes[:, kept][:, -COMPONENTS:]
    return mean, deviation, axes / variance**0.25


def measure(
    subjects: Sequence[Subject], root: Path, name: str, shots: Sequence[int], seeds: Sequence[int]
) -> list[Row]:
    """One row for every pair of extractors, number of shots and seed of a category."""
    category = load_category(detect_dataset(root), root, name)
    train, test = (
        [prepare(source.load()) for source in track(sources, f"Preparing {name}")]
        for sources in (category.train, category.test)
    )
    frames = [frame_of(sample, crop=True) for sample in test]
    truth = [_truth(sample, frame) for sample, frame in zip(test, frames, strict=True)]
    labels = [bool(sample.is_anomalous) for sample in test]
    rows = []
    for subject in subjects:
        seen = [look(subject, frame) for frame in track(frames, f"{subject.name}: {name}")]
        views: dict[int, list[Seen]] = {}
        found: dict[tuple[int, ...], tuple[float, ...]] = {}  # seeds may draw the same shots
        for count, seed in product(shots, seeds):
            drawn = tuple(choose_shots(len(train), count, seed))
            for index in set(drawn) - views.keys():
                frame = frame_of(train[index], crop=True)
                views[index] = [look(subject, turned(frame, quarters)) for quarters in range(4)]
            if drawn not in found:
                memory = Memory([view for index in drawn for view in views[index]], seed)
                maps = [memory.map(one) for one in seen]
                image = image_auroc([float(map.max()) for map in maps], labels)
                found[drawn] = (image, *aupro(maps, truth, (0.3, 0.01)))
            where = {"subject": subject.name, "category": name, "shots": count, "seed": seed}
            figures = zip(MEASURES, found[drawn], strict=True)
            rows.append(where | {measure: 100 * value for measure, value in figures})
    return rows


def _truth(sample: Sample, frame: Frame) -> NDArray[np.bool_]:
    mask = sample.ground_truth
    return frame.grid_mask(np.zeros(sample.shape, bool) if mask is None else mask, SIZE)


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says; 2 where its input is wrong."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, nargs="+", required=True, help="sets, of equal weight in the mean")
    made.add_argument("--classic", action="store_true", help="measure the classic pair")
    made.add_argument("--teacher", type=Path, help="measure timm's mobilenetv2_100 with these weights")
    made.add_argument("--embedded", type=Path, nargs="*", default=[], help="trained files to measure")
    made.add_argument("--shots", type=int, nargs="+", default=[1, 4])
    made.add_argument("--seeds", type=int, nargs="+", default=[42, 0, 1])
    made.add_argument("--out", type=Path, help="JSON file of every single figure")
    options = made.parse_args(arguments)
    try:
        with display():
            pairs = subjects(options.classic, options.teacher, options.embedded)
            rows = [
                {"set": str(root.name), **row}
                for root in options.data
                for name in list_categories(detect_dataset(root), root)
                for row in measure(pairs, root, name, options.shots, options.seeds)
            ]
            if options.out:
                write_json(options.out, rows)
    except CFRError as error:
        print(f"measure_extractors: {error}", file=sys.stderr)
        return 2
    print("\n".join(table(rows)))
    return 0


def table(rows: Sequence[Row]) -> list[str]:
    """Means over categories and seeds of every set, and over the sets, as a Markdown table."""
    names = list(dict.fromkeys(row["subject"] for row in rows))
    sets = list(dict.fromkeys(row["set"] for row in rows))
    lines = [f"| {' / '.join(MEASURES)} | shots | {' | '.join(sets)} | mean |"]
    lines.append("|---" * (len(sets) + 3) + "|")
    for name in names:
        for count in dict.fromkeys(row["shots"] for row in rows):
            means = []
            for place in sets:
                wanted = {"subject": name, "shots": count, "set": place}
                kept = [row for row in rows if wanted.items() <= row.items()]
                means.append([float(np.mean([row[measure] for row in kept])) for measure in MEASURES])
            means.append(np.mean(means, axis=0).tolist())
            cells = [" / ".join(f"{value:.1f}" for value in mean) for mean in means]
            lines.append(f"| {name} | {count} | {' | '.join(cells)} |")
    return lines


def _subject(label: str, rgb: str, xyz: str, options: dict[str, Any]) -> Subject:
    return Subject(label, create_extractor(rgb, "rgb", **options), create_extractor(xyz, "xyz", **options))


if __name__ == "__main__":
    sys.exit(main())
