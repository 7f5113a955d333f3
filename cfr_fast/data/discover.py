"""From paths that a user types to samples: files, folders, or a mixture of both."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cfr_fast.data.camera import Camera
from cfr_fast.data.companions import SampleKey, identify, locate
from cfr_fast.data.files import PathLike
from cfr_fast.data.sample import SampleSource
from cfr_fast.data.units import Unit, require_unit
from cfr_fast.errors import InputError


def find_samples(
    paths: PathLike | Iterable[PathLike],
    camera: Camera | PathLike | None = None,
    unit: Unit | None = None,
) -> list[SampleSource]:
    """Find the samples that `paths` speak of, with their ground truth where the layout has it.

    Any file of a sample stands for it (photo, cloud, depth image or mask): the others are found by
    convention, as in MVTec 3D-AD (``rgb/NAME.png`` beside ``xyz/NAME.tiff``), as in Eyecandies
    (``NN_image_4.png`` beside ``NN_depth.png``), or by a common stem in one folder (see
    `cfr_fast.data.folder`). A folder stands for all samples inside, however deep.

    Args:
        paths: one path or several; files keep their order, the samples of a folder are sorted.
        camera: intrinsics, or the file that has them; None looks for ``camera.json`` beside the files and
            in the three folders above.
        unit: of clouds and floating-point depth; None takes the camera's, or metres without one.

    Returns:
        Sources, each sample once, named by as many parts of their paths as tell them apart.

    Raises:
        InputError: nothing there, a file of another kind, or a sample that lacks its photo, its geometry,
            or the camera for its depth; the message says which names were looked for.
    """
    if unit is not None:
        require_unit(unit)
    keys: dict[SampleKey, None] = {}
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        keys.update(dict.fromkeys(_keys(Path(path))))
    if not keys:
        raise InputError("paths", "at least one file or folder", "none")
    intrinsics = camera if camera is None or isinstance(camera, Camera) else Path(camera)
    return [
        locate(key, name, guess_defect(key.folder), intrinsics, unit)
        for key, name in zip(keys, _short_names(list(keys)), strict=True)
    ]


def scan(folder: Path) -> list[SampleKey]:
    """Every sample in `folder`, however deep, sorted; hidden files and folders are left out."""
    keys: set[SampleKey] = set()
    seen: set[str] = set()
    for parent, children, files in os.walk(folder, followlinks=True):
        # Links are followed, since datasets are often linked together; each folder is entered once.
        seen.add(os.path.realpath(parent))
        children[:] = [
            child
            for child in children
            if not child.startswith(".") and os.path.realpath(os.path.join(parent, child)) not in seen
        ]
        keys.update(key for file in files if (key := identify(Path(parent, file))) is not None)
    return sorted(keys)


def guess_defect(folder: Path) -> str | None:
    """Defect type by the place: ``…/good``, or ``test/<defect>`` where ``train`` lies beside ``test``."""
    if folder.name == "good":
        return "good"
    is_test = folder.parent.name == "test" and (folder.parent.parent / "train").is_dir()
    return folder.name if is_test else None


def _keys(path: Path) -> list[SampleKey]:
    absolute = Path(os.path.abspath(path))
    if absolute.is_dir():
        keys = scan(absolute)
        if not keys:
            raise InputError(str(path), "a folder with samples", "a folder without images or clouds")
        return keys
    if not absolute.is_file():
        raise InputError(str(path), "a file or folder", "nothing at this path")
    key = identify(absolute)
    if key is None:
        raise InputError(
            str(path),
            "an image, cloud or depth image (.png, .jpg, .bmp, .tiff, .npy, .ply, .pcd)",
            f"{path.suffix or 'no suffix'}",
        )
    return [key]


def _short_names(keys: list[SampleKey]) -> list[str]:
    parts = [(*key.folder.parts[1:], key.stem) for key in keys]
    for count in range(1, max(len(part) for part in parts) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise InputError("paths", "samples with different names", "the same name in two layouts side by side")
