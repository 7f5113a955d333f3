"""MVTec 3D-AD as it comes: ``<category>/<split>/<defect>/{rgb/NNN.png,xyz/NNN.tiff,gt/NNN.png}``."""

from __future__ import annotations

from pathlib import Path

from cfr_fast.data.files import PathLike
from cfr_fast.data.layout import SampleFiles, category_folder, category_names
from cfr_fast.data.sample import Category, SampleSource
from cfr_fast.errors import InputError


def is_category(folder: Path) -> bool:
    """Whether `folder` is one category in this layout."""
    return (folder / "train" / "good" / "rgb").is_dir()


def list_categories(root: PathLike) -> list[str]:
    """Names of the categories in `root` (the dataset, or one category's folder), sorted."""
    return category_names(root, is_category)


def load_category(root: PathLike, category: str) -> Category:
    """List one category's samples, sorted; nothing but names is read.

    Args:
        root: the dataset, or the category's own folder.
        category: its name.

    Raises:
        InputError: no such category, no training sample, a photo without its cloud, or a defect without
            its ground truth.
    """
    folder = category_folder(root, category, is_category)
    train = _samples(folder, "train/good")
    if not train:
        raise InputError(str(folder / "train" / "good" / "rgb"), "at least one .png", "none")
    defects = sorted(path.name for path in folder.glob("test/*") if (path / "rgb").is_dir())
    test = tuple(source for defect in defects for source in _samples(folder, f"test/{defect}"))
    return Category(folder.name, train, test, _samples(folder, "validation/good"))


def _samples(folder: Path, group: str) -> tuple[SampleSource, ...]:
    sources = []
    defect = group.rpartition("/")[2]
    for rgb in sorted((folder / group / "rgb").glob("[!.]*.png")):
        cloud = folder / group / "xyz" / f"{rgb.stem}.tiff"
        mask = folder / group / "gt" / rgb.name
        if not cloud.is_file():
            raise InputError(str(rgb), f"its cloud {cloud}", "nothing at this path")
        if not mask.is_file() and defect != "good":
            raise InputError(str(rgb), f"its ground truth {mask}", "nothing at this path")
        files = SampleFiles(rgb, cloud, ground_truth=mask if mask.is_file() else None, unit="m")
        sources.append(files.source(f"{group}/{rgb.stem}", defect))
    return tuple(sources)
