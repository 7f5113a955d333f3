"""A user's own parts in folders.

::

    DIR/
      camera.json            fx, fy, cx, cy (optional: width, height, depth_scale, unit); for depth images,
                             unorganized clouds and millimetres; may lie deeper, or one folder higher
      train/                 normal samples, directly or in train/good/
      validation/            optional, normal too
      test/good/             optional: normal samples
      test/<defect>/         optional: samples with that defect
      test/                  optional, directly inside: samples of unknown kind

The files of a sample share their stem and lie in one folder::

    NAME.png               photo (.png, .jpg, .jpeg, .bmp; or NAME_rgb.*)
    NAME.tiff              organized cloud (.tiff, .tif, .npy, .ply, .pcd; or NAME_xyz.*), or instead
    NAME_depth.png         depth: 16-bit .png, or .tiff, .tif, .npy
    NAME_gt.png            optional: ground truth, non-zero on defects (or NAME_mask.png)

or in the folders ``rgb``, ``xyz`` (or ``depth``) and ``gt`` beside each other, as in MVTec 3D-AD.
The root is DIR itself or a folder of several such DIRs, the categories.
"""

from __future__ import annotations

from pathlib import Path

from cfr_fast.data.companions import SampleKey, locate
from cfr_fast.data.discover import scan
from cfr_fast.data.files import PathLike
from cfr_fast.data.layout import category_folder, category_names
from cfr_fast.data.sample import Category, SampleSource
from cfr_fast.errors import InputError


def is_category(folder: Path) -> bool:
    """Whether `folder` is one category in this layout."""
    return (folder / "train").is_dir()


def list_categories(root: PathLike) -> list[str]:
    """Names of the categories in `root` (or of `root` itself, if it is one), sorted."""
    return category_names(root, is_category)


def load_category(root: PathLike, category: str) -> Category:
    """List one category's samples, sorted; nothing but names is read.

    Args:
        root: the folder of categories, or the category's own folder.
        category: its name.

    Raises:
        InputError: no such category, no training sample, or an incomplete sample.
    """
    folder = category_folder(root, category, is_category)
    train = _samples(folder, "train")
    if not train:
        raise InputError(str(folder / "train"), "at least one sample", "none")
    return Category(folder.name, train, _samples(folder, "test"), _samples(folder, "validation"))


def _samples(folder: Path, split: str) -> tuple[SampleSource, ...]:
    keys = scan(folder / split)
    return tuple(locate(key, _name(folder, key), _defect(folder, key), None, None) for key in keys)


def _name(folder: Path, key: SampleKey) -> str:
    return (key.folder.relative_to(folder) / key.stem).as_posix()


def _defect(folder: Path, key: SampleKey) -> str | None:
    split, *groups = key.folder.relative_to(folder).parts
    if split != "test":
        return "good"
    return groups[0] if groups else None
