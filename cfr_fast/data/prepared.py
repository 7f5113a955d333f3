"""Prepared copies of a category on disk, in MVTec 3D-AD's layout."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cfr_fast.data.clouds import write_xyz
from cfr_fast.data.files import PathLike, reading, write_atomically
from cfr_fast.data.images import write_mask, write_rgb
from cfr_fast.data.preparation import Background, is_prepared, prepare
from cfr_fast.data.sample import Category, SampleSource
from cfr_fast.errors import InputError
from cfr_fast.progress import track

_RECORD = "preparation.json"


@dataclass(frozen=True)
class PreparedCategory:
    """What `prepare_category` did.

    Args:
        folder: the category's copy.
        written, skipped: number of samples prepared now, and of those found complete.
        with_background: names of the samples written whose background could not be told apart and stays.
    """

    folder: Path
    written: int
    skipped: int
    with_background: tuple[str, ...]


def prepare_category(
    category: Category,
    out: PathLike,
    background: Background = "auto",
    seed: int = 0,
    source: PathLike | None = None,
) -> PreparedCategory:
    """Write prepared samples to ``out/<category>/<split>/<defect>/{rgb,xyz,gt}``; the originals stay.

    Samples of unknown kind go to ``test/{rgb,xyz}`` directly. Every file appears whole or not at all, and a
    second run continues where the first one stopped; ``preparation.json`` says with which settings.

    Args:
        category: as a reader lists it.
        out: the folder for prepared categories.
        background, seed: as in `prepare`.
        source: the dataset's folder; given, `out` is made sure to lie elsewhere.

    Raises:
        InputError: `out` is the source or lies inside; its category folder holds something else already; or
            a sample cannot be read or prepared.
        OutputError: `out` cannot be written.
    """
    folder = Path(out).resolve() / category.name
    if source is not None:
        _require_elsewhere(folder, Path(source).resolve())
    _claim(folder, {"background": background, "seed": seed})
    jobs = [
        job for split in ("train", "validation", "test") for job in _jobs(getattr(category, split), split)
    ]
    written, with_background = 0, []
    for group, stem, sample_source in track(jobs, f"Preparing {category.name}"):
        place = folder / group
        if (place / "xyz" / f"{stem}.tiff").is_file():  # written last
            continue
        sample = prepare(sample_source.load(), background, seed)
        if not is_prepared(sample):
            with_background.append(sample_source.name)
        if sample.ground_truth is not None and group.startswith("test"):
            write_mask(place / "gt" / f"{stem}.png", sample.ground_truth)
        write_rgb(place / "rgb" / f"{stem}.png", sample.rgb)
        write_xyz(place / "xyz" / f"{stem}.tiff", sample.xyz)
        written += 1
    return PreparedCategory(folder, written, len(jobs) - written, tuple(with_background))


def _jobs(sources: tuple[SampleSource, ...], split: str) -> list[tuple[str, str, SampleSource]]:
    """(Folder, file stem, sample) of every source; the stem ends its name where that is unique."""
    places = []
    for source in sources:
        defect = source.defect if split == "test" else "good"
        places.append((f"{split}/{defect}" if defect else split, source.name.rpartition("/")[2], source))
    uses = Counter((group, stem) for group, stem, _ in places)
    return [
        (group, stem if uses[group, stem] == 1 else source.name.replace("/", "_"), source)
        for group, stem, source in places
    ]


def _require_elsewhere(folder: Path, source: Path) -> None:
    inside = source in (folder, *folder.parents) or folder in source.parents
    if inside:
        raise InputError("out", f"a folder apart from the data in {source}", str(folder))


def _claim(folder: Path, settings: dict[str, str | int]) -> None:
    """Make sure that `folder` is new, or was begun with the same settings."""
    record = folder / _RECORD
    if record.is_file():
        with reading(record, "JSON"):
            earlier = json.loads(record.read_text(encoding="utf-8"))
        if earlier != settings:
            raise InputError(str(folder), f"an earlier run with {settings}", f"one with {earlier}")
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            str(folder), "a new or empty folder, or one that was begun earlier", "one with other files in it"
        )
    else:
        write_atomically(record, (json.dumps(settings) + "\n").encode())
