"""The datasets by name."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias, get_args

from cfr_fast.data import eyecandies, folder, mvtec3d
from cfr_fast.data.files import PathLike
from cfr_fast.data.sample import Category
from cfr_fast.errors import InputError

DatasetName: TypeAlias = Literal["mvtec3d", "eyecandies", "folder"]


class _Layout(Protocol):
    def list_categories(self, root: PathLike) -> list[str]: ...

    def load_category(self, root: PathLike, category: str) -> Category: ...


# From the most specific to the one that fits any.
_LAYOUTS: dict[DatasetName, _Layout] = {"mvtec3d": mvtec3d, "eyecandies": eyecandies, "folder": folder}


def list_categories(dataset: DatasetName, root: PathLike) -> list[str]:
    """Names of the categories in `root`, sorted.

    Args:
        dataset: the layout: "mvtec3d", "eyecandies" or "folder".
        root: the dataset's folder, or one category's.

    Raises:
        InputError: unknown dataset, or no category in `root`.
    """
    _require_known(dataset)
    return _LAYOUTS[dataset].list_categories(root)


def load_category(dataset: DatasetName, root: PathLike, category: str) -> Category:
    """List the samples of one category; they are read from disk when loaded.

    Args:
        dataset: the layout: "mvtec3d", "eyecandies" or "folder".
        root: the dataset's folder, or the category's own.
        category: its name.

    Raises:
        InputError: unknown dataset or category, no training sample, or an incomplete sample.
    """
    _require_known(dataset)
    return _LAYOUTS[dataset].load_category(root, category)


def detect_dataset(root: PathLike) -> DatasetName:
    """Which layout `root` has, the most specific that fits.

    Raises:
        InputError: no layout fits.
    """
    for name, layout in _LAYOUTS.items():
        try:
            layout.list_categories(root)
        except InputError:
            continue
        return name
    raise InputError(str(root), "a dataset (a train folder in it, or in its subfolders)", "none")


def _require_known(dataset: str) -> None:
    if dataset not in get_args(DatasetName):
        raise InputError("dataset", f"one of {', '.join(get_args(DatasetName))}", repr(dataset))
