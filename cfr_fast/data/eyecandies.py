"""Eyecandies as it comes: ``<category>/<split>/data/NN_*``, depth normalised to 16 bits."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import yaml
from numpy.typing import NDArray

from cfr_fast.data.camera import Camera
from cfr_fast.data.depth import depth_to_xyz
from cfr_fast.data.files import PathLike, reading
from cfr_fast.data.images import read_rgb, read_uint16
from cfr_fast.data.layout import category_folder, category_names, read_ground_truth
from cfr_fast.data.sample import Category, Sample, SampleSource
from cfr_fast.errors import InputError

TestSplit: TypeAlias = Literal["test_public", "test_private"]

PHOTO = "image_4.png"
"""Of the six lightings (``image_0.png`` to ``image_5.png``) the one that the literature uses."""

_FOCAL = 711.11  # pixels, in an image 512 pixels wide
_WIDTH = 512
_DEFECTS = ("bumps", "dents", "colors", "normals")


def is_category(folder: Path) -> bool:
    """Whether `folder` is one category in this layout."""
    return (folder / "train" / "data").is_dir()


def list_categories(root: PathLike) -> list[str]:
    """Names of the categories in `root` (the dataset, or one category's folder), sorted."""
    return category_names(root, is_category)


def load_category(root: PathLike, category: str, test_split: TestSplit = "test_public") -> Category:
    """List one category's samples, sorted; only their metadata are read.

    Args:
        root: the dataset, or the category's own folder.
        category: its name.
        test_split: the private split comes without masks and metadata, so its defects are unknown.

    Raises:
        InputError: no such category, no training sample, or a photo without its depth.
    """
    folder = category_folder(root, category, is_category)
    train, validation, test = (_samples(folder, split) for split in ("train", "val", test_split))
    if not train:
        raise InputError(str(folder / "train" / "data"), f"at least one *_{PHOTO}", "none")
    return Category(folder.name, train, test, validation)


def source(folder: Path, number: str, name: str) -> SampleSource:
    """The sample ``NUMBER_*`` in `folder`, to be read when needed.

    Raises:
        InputError: a file is missing, or its metadata cannot be read.
    """
    needs = (PHOTO, "depth.png", "info_depth.yaml")
    for needed in needs:
        if not (folder / f"{number}_{needed}").is_file():
            raise InputError(f"sample {number} in {folder}", f"{number}_{needed}", "nothing of that name")
    metadata = folder / f"{number}_metadata.yaml"
    defect = _defect(metadata) if metadata.is_file() else None
    optional = [path for path in (folder / f"{number}_mask.png", metadata) if path.is_file()]
    files = (*(folder / f"{number}_{needed}" for needed in needs), *optional)
    return SampleSource(name, partial(load_sample, folder, number, name, defect), defect, files)


def load_sample(folder: Path, number: str, name: str, defect: str | None) -> Sample:
    """Read the sample ``NUMBER_*`` in `folder`; every pixel has a measurement.

    Raises:
        InputError: a missing or broken file, named.
    """
    rgb = read_rgb(folder / f"{number}_{PHOTO}")
    depth = read_depth(folder / f"{number}_depth.png", folder / f"{number}_info_depth.yaml")
    mask = folder / f"{number}_mask.png"
    ground_truth = read_ground_truth(mask if mask.is_file() else None, defect, rgb.shape[:2])
    xyz = depth_to_xyz(depth, camera_for(*depth.shape))
    return Sample(rgb, xyz, ground_truth, name, defect)


def read_depth(path: PathLike, info: PathLike) -> NDArray[np.float64]:
    """Depth in metres, [H, W]: png / 65535 · (max − min) + min, the two from ``info_depth.yaml``.

    Raises:
        InputError: a missing or broken file, named.
    """
    content = _read_yaml(info)
    try:
        low, high = (float(content["normalization"][key]) for key in ("min", "max"))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(str(info), "numbers normalization.min and normalization.max", "none") from error
    if not (math.isfinite(high) and 0 <= low < high):
        raise InputError(str(info), "0 ≤ min < max, in metres", f"min {low:g} and max {high:g}")
    return read_uint16(path) / 65535 * (high - low) + low


def camera_for(height: int, width: int) -> Camera:
    """The renderer's camera for an image of this size: principal point at the centre."""
    focal = _FOCAL * width / _WIDTH
    return Camera(focal, focal, width / 2, height / 2, width, height)


def _samples(folder: Path, split: str) -> tuple[SampleSource, ...]:
    data = folder / split / "data"
    numbers = sorted(path.name.removesuffix(f"_{PHOTO}") for path in data.glob(f"[!.]*_{PHOTO}"))
    return tuple(source(data, number, f"{split}/{number}") for number in numbers)


def _defect(metadata: Path) -> str:
    content = _read_yaml(metadata)
    found = [defect for defect in _DEFECTS if content.get(f"anomalous_{defect}")]
    if found:
        return "+".join(found)
    return "anomalous" if content.get("anomalous") else "good"


def _read_yaml(path: PathLike) -> dict[str, Any]:
    with reading(path, "YAML"):
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise InputError(str(path), "a mapping", type(content).__name__)
    return content
