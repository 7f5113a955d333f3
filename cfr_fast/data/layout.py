"""What the layouts share: the files of one sample, how they are loaded, how categories are found."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.camera import Camera, read_camera
from cfr_fast.data.clouds import read_xyz
from cfr_fast.data.depth import depth_to_xyz, read_depth
from cfr_fast.data.files import PathLike
from cfr_fast.data.images import read_mask, read_rgb
from cfr_fast.data.sample import Sample, SampleSource
from cfr_fast.data.units import Unit
from cfr_fast.errors import InputError


@dataclass(frozen=True)
class SampleFiles:
    """Where one sample lies.

    Args:
        rgb: the photo.
        geometry: a cloud, or a depth image.
        is_depth: which of the two.
        ground_truth: mask; None where there is none.
        camera: intrinsics, given or in a file; needed for depth and for unorganized clouds.
        unit: of coordinates; None takes the camera's, or metres without one.
    """

    rgb: Path
    geometry: Path
    is_depth: bool = False
    ground_truth: Path | None = None
    camera: Camera | Path | None = None
    unit: Unit | None = None

    def source(self, name: str, defect: str | None) -> SampleSource:
        """The sample under `name`, to be read when needed."""
        camera = self.camera if isinstance(self.camera, Path) else None
        files = (self.rgb, self.geometry, self.ground_truth, camera)
        present = tuple(path for path in files if path is not None)
        return SampleSource(name, partial(load_sample, self, name, defect), defect, present)


def load_sample(files: SampleFiles, name: str, defect: str | None) -> Sample:
    """Read one sample; a good one without a mask gets an empty mask.

    Raises:
        InputError: a file at fault, named; or photo and cloud of different sizes.
    """
    rgb = read_rgb(files.rgb)
    camera = read_camera(files.camera) if isinstance(files.camera, Path) else files.camera
    unit = files.unit or (camera.unit if camera is not None else "m")
    if not files.is_depth:
        xyz = read_xyz(files.geometry, unit, camera, rgb.shape[:2])
    elif camera is not None:
        xyz = depth_to_xyz(read_depth(files.geometry, camera.depth_scale, unit), camera)
    else:
        raise InputError(str(files.geometry), "a camera (camera.json) to turn depth into points", "none")
    return Sample(rgb, xyz, read_ground_truth(files.ground_truth, defect, rgb.shape[:2]), name, defect)


def read_ground_truth(
    path: Path | None, defect: str | None, shape: tuple[int, int]
) -> NDArray[np.bool_] | None:
    """The mask at `path`, bool [H, W]; without one, an empty mask of `shape` if good, else None."""
    if path is not None:
        return read_mask(path)
    return np.zeros(shape, dtype=bool) if defect == "good" else None


def category_names(root: PathLike, is_category: Callable[[Path], bool]) -> list[str]:
    """Names of the category folders in `root`, sorted, or of `root` itself if it is one.

    Raises:
        InputError: `root` is no folder, or neither is nor holds a category.
    """
    folder = _require_folder(root)
    if is_category(folder):
        return [folder.name]
    names = sorted(child.name for child in folder.iterdir() if child.is_dir() and is_category(child))
    if not names:
        raise InputError(str(root), "a folder of categories, each with a train folder in its layout", "none")
    return names


def category_folder(root: PathLike, category: str, is_category: Callable[[Path], bool]) -> Path:
    """The folder of `category` in `root`, or `root` itself if that is its name.

    Raises:
        InputError: no such category; those that exist are listed and the closest is suggested.
    """
    names = category_names(root, is_category)
    if category not in names:
        close = difflib.get_close_matches(category.lower(), {name.lower(): name for name in names}, 1)
        suggestion = next((name for name in names if close and name.lower() == close[0]), None)
        hint = f" (did you mean {suggestion!r}?)" if suggestion else ""
        raise InputError("category", f"one of {', '.join(names)}", f"{category!r}{hint}")
    folder = _require_folder(root)
    return folder if is_category(folder) else folder / category


def _require_folder(root: PathLike) -> Path:
    folder = Path(os.path.abspath(root))
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing at this path"
        raise InputError(str(root), "a folder", got)
    return folder
