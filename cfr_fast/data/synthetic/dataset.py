"""Whole categories: listed to be made when needed, or written to disk in MVTec 3D-AD's layout."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from cfr_fast.data.clouds import write_xyz
from cfr_fast.data.files import PathLike, reading, write_atomically
from cfr_fast.data.images import write_mask, write_rgb
from cfr_fast.data.sample import Category, Sample, SampleSource
from cfr_fast.data.synthetic.scene import (
    categories,
    check_category,
    check_number,
    defects,
    intrinsics,
    make_sample,
)
from cfr_fast.errors import InputError, OutputError
from cfr_fast.progress import track

RECORD, CAMERA = "synthetic.json", "camera.json"

STRIDE = 1_000_000
"""Test samples of different kinds are different parts: each kind counts from its own multiple of this."""


@dataclass(frozen=True)
class Plan:
    """How many samples of what, and how they are made: see `load_category`."""

    train: int
    validation: int
    good: int
    defective_per_type: int
    seed: int
    size: int
    background: bool

    def __post_init__(self) -> None:
        check_number("train", self.train, 1, STRIDE)
        for name in ("validation", "good", "defective_per_type"):
            check_number(name, getattr(self, name), 0, STRIDE)
        check_number("seed", self.seed, 0, 2**64 - 1)
        check_number("size", self.size, 64, 2048)

    def category(self, name: str) -> Category:
        """The samples of one category, to be made when needed."""
        kinds = [("good", self.good), *((defect, self.defective_per_type) for defect in defects())]
        test = [
            self._source(name, "test", defect, number, rank * STRIDE + number)
            for rank, (defect, count) in enumerate(kinds)
            for number in range(count)
        ]
        train, validation = (
            tuple(self._source(name, split, "good", number, number) for number in range(count))
            for split, count in (("train", self.train), ("validation", self.validation))
        )
        return Category(name, train, tuple(test), validation)

    def _source(self, category: str, split: str, defect: str, number: int, index: int) -> SampleSource:
        name = f"{split}/{defect}/{number:03d}"
        make = partial(
            make_sample, category, index, split, defect, self.seed, self.size, background=self.background
        )
        return SampleSource(name, partial(_named, make, name), defect)


def load_category(
    category: str,
    train: int = 4,
    good: int = 6,
    defective_per_type: int = 2,
    seed: int = 0,
    size: int = 256,
    validation: int = 2,
    background: bool = False,
) -> Category:
    """List one category of the procedural set; samples are made when they are loaded.

    Args:
        category: one of `categories()`.
        train: number of normal training samples, at least 1.
        good: number of normal test samples.
        defective_per_type: number of test samples with each of `defects()`.
        seed: of the whole set.
        size: image side in pixels, 64 to 2048.
        validation: number of normal validation samples.
        background: keep the table in the clouds, see `make_sample`.

    Raises:
        InputError: an unknown category or a number out of range.
    """
    check_category(category)
    return Plan(train, validation, good, defective_per_type, seed, size, background).category(category)


def write_dataset(
    out: PathLike,
    categories: Sequence[str] | None = None,
    train: int = 4,
    good: int = 6,
    defective_per_type: int = 2,
    seed: int = 0,
    size: int = 256,
    validation: int = 2,
    background: bool = False,
) -> Path:
    """Write the procedural set in MVTec 3D-AD's layout, whole or not at all.

    Beside the categories lie ``camera.json`` (intrinsics) and ``synthetic.json`` (what the set was made
    with). A set written here before is replaced, whatever it was made with.

    Args:
        out: folder of the set: new, empty, or holding such a set and nothing else.
        categories: which to write; None for all.
        train, good, defective_per_type, seed, size, validation, background: as for `load_category`.

    Returns:
        `out`, absolute.

    Raises:
        InputError: an unknown category, a number out of range, or `out` holds something else.
        OutputError: the place cannot be written.
    """
    names = _names(categories)
    plan = Plan(train, validation, good, defective_per_type, seed, size, background)
    target = Path(os.path.abspath(out))
    _require_ours(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    try:
        building.chmod(0o755)
        _write(building, names, plan)
        _swap(building, target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _named(make: partial[Sample], name: str) -> Sample:
    return replace(make(), name=name)


def _names(wanted: Sequence[str] | None) -> list[str]:
    if isinstance(wanted, str):
        wanted = [wanted]
    for name in wanted or ():
        check_category(name)
    return sorted(set(wanted)) if wanted else list(categories())


def _write(folder: Path, names: list[str], plan: Plan) -> None:
    jobs = [(name, source) for name in names for source in _all(plan.category(name))]
    for name, source in track(jobs, "Making samples"):
        sample = source.load()
        rgb, xyz, gt = (folder / path for path in _paths(name, source.name))
        write_rgb(rgb, sample.rgb)
        write_xyz(xyz, sample.xyz)
        assert sample.ground_truth is not None
        if source.name.startswith("test/"):
            write_mask(gt, sample.ground_truth)
    camera = intrinsics(plan.size)
    known = {key: getattr(camera, key) for key in ("fx", "fy", "cx", "cy", "width", "height")}
    write_atomically(folder / CAMERA, _json(known))
    write_atomically(folder / RECORD, _json({"categories": names, **asdict(plan)}))


def _swap(building: Path, target: Path) -> None:
    """Put the finished set where the old one is, or nothing yet."""
    old = building.with_name(building.name + ".old")
    if target.exists():
        target.rename(old)
    try:
        building.rename(target)
    except OSError:
        with suppress(OSError):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _require_ours(target: Path) -> None:
    """Refuse to replace anything but files that a set has by its own record."""
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError("out", "a folder", f"a file, {target}")
    found = {path.relative_to(target) for path in target.rglob("*") if not path.is_dir()}
    if found and found - _recorded(target):
        foreign = min(str(path) for path in found - _recorded(target))
        raise InputError(
            "out", "a new or empty folder, or a procedural set alone", f"{target}, which holds {foreign!r}"
        )


def _recorded(target: Path) -> set[Path]:
    """The files of the set in `target` according to its record; none without one."""
    record = target / RECORD
    if not record.is_file():
        return set()
    with reading(record, "JSON"):
        content = json.loads(record.read_text(encoding="utf-8"))
        names, plan = content.pop("categories"), Plan(**content)
    paths = {Path(RECORD), Path(CAMERA)}
    for name in names:
        for source in _all(plan.category(name)):
            paths.update(_paths(name, source.name))
    return paths


def _all(category: Category) -> tuple[SampleSource, ...]:
    return (*category.train, *category.validation, *category.test)


def _paths(category: str, name: str) -> tuple[Path, Path, Path]:
    """Photo, cloud and mask of the sample called `name` in a category."""
    group, number = Path(category, name).parent, Path(name).name
    return group / "rgb" / f"{number}.png", group / "xyz" / f"{number}.tiff", group / "gt" / f"{number}.png"


def _json(content: dict[str, object]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
