r"""How well extractors tell defects, by the plainest detector: ``python -m tools.measure_extractors --help``.

Features are averaged over a 28×28 grid and standardised by the shots' own means and deviations; the map of a
cell is its cosine distance to the nearest cell of the shots, summed over photo and shape; the image score is
the map's maximum. That is PatchCore in little: seconds for an extractor and a set, to choose networks by.
What ships is decided by ``cfr evaluate``, for example

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
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, normalize

from cfr_fast.data import Frame, Sample, detect_dataset, frame_of, list_categories, load_category, prepare
from cfr_fast.errors import CFRError, InputError
from cfr_fast.evaluation import aupro, choose_shots, image_auroc
from cfr_fast.evaluation.files import write_json
from cfr_fast.extractors import Extractor, create_extractor
from cfr_fast.progress import display, track

CELLS = 28
SIZE = 224
Row = dict[str, Any]
MEASURES = ("I-AUROC", "AUPRO 30 %", "AUPRO 1 %")


@dataclass(frozen=True)
class Seen:
    """What one sample shows, extracted once: cells [784, D] of both kinds, which count, and the truth."""

    cells: dict[str, Tensor]
    valid: Tensor
    truth: NDArray[np.bool_]
    anomalous: bool


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


def look(subject: Subject, frame: Frame, sample: Sample) -> Seen:
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
    mask = sample.ground_truth
    truth = frame.grid_mask(np.zeros(sample.shape, bool) if mask is None else mask, SIZE)
    return Seen(cells, valid, truth, bool(sample.is_anomalous))


def anomaly_map(shots: Sequence[Seen], seen: Seen) -> NDArray[np.float32]:
    """Cosine distance to the nearest cell of the shots, both kinds added: float32 [SIZE, SIZE]."""
    total = torch.zeros(CELLS * CELLS)
    for kind in seen.cells:
        bank = torch.cat([shot.cells[kind][shot.valid] for shot in shots])
        mean, deviation = bank.mean(dim=0), bank.std(dim=0).clamp(min=1e-6)
        rows, query = (normalize((cells - mean) / deviation, dim=1) for cells in (bank, seen.cells[kind]))
        total += 1 - (query @ rows.T).max(dim=1).values
    total = (total * seen.valid).reshape(1, 1, CELLS, CELLS)
    return interpolate(total, (SIZE, SIZE), mode="bilinear")[0, 0].numpy()


def measure(
    subjects: Sequence[Subject], root: Path, name: str, shots: Sequence[int], seeds: Sequence[int]
) -> list[Row]:
    """One row for every pair of extractors, number of shots and seed of a category."""
    category = load_category(detect_dataset(root), root, name)
    samples = {
        split: [prepare(source.load()) for source in track(sources, f"Preparing {name}")]
        for split, sources in (("train", category.train), ("test", category.test))
    }
    rows = []
    for subject in subjects:
        train, test = (
            [look(subject, frame_of(sample, crop=True), sample) for sample in track(split, subject.name)]
            for split in samples.values()
        )
        truth, labels = [seen.truth for seen in test], [seen.anomalous for seen in test]
        found: dict[tuple[int, ...], tuple[float, ...]] = {}  # seeds may draw the same shots
        for count, seed in product(shots, seeds):
            drawn = tuple(choose_shots(len(train), count, seed))
            if drawn not in found:
                maps = [anomaly_map([train[index] for index in drawn], seen) for seen in test]
                image = image_auroc([float(map.max()) for map in maps], labels)
                found[drawn] = (image, *aupro(maps, truth, (0.3, 0.01)))
            where = {"subject": subject.name, "category": name, "shots": count, "seed": seed}
            figures = zip(MEASURES, found[drawn], strict=True)
            rows.append(where | {measure: 100 * value for measure, value in figures})
    return rows


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
