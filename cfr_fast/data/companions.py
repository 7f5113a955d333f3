"""Which files belong to one sample, in any layout: found by where they lie and what they are called."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cfr_fast.data import eyecandies
from cfr_fast.data.camera import Camera
from cfr_fast.data.layout import SampleFiles
from cfr_fast.data.sample import SampleSource
from cfr_fast.data.units import Unit
from cfr_fast.errors import InputError

_PHOTO = (".png", ".jpg", ".jpeg", ".bmp")
_CLOUD = (".tiff", ".tif", ".npy", ".ply", ".pcd")
_DEPTH = (".png", ".tiff", ".tif", ".npy")
_MASK = (".png", ".bmp", ".tiff", ".tif")
_KNOWN = frozenset(_PHOTO + _CLOUD)
_ROLE_SUFFIX = re.compile(r"_(rgb|xyz|depth|gt|mask)$")
_CAMERA_NAMES = ("camera.json", "camera.yaml", "camera.yml")
_CAMERA_LEVELS = 4
"""A camera file is looked for in the sample's folder and the three above: defect, test, category, root."""


@dataclass(frozen=True, order=True)
class SampleKey:
    """One sample on disk.

    Args:
        folder: the one that holds the files, or their rgb, xyz, depth and gt folders.
        stem: what the names of its files have in common.
        style: "folders" (``rgb/NAME.png`` beside ``xyz/NAME.tiff``), "stem" (``NAME.png`` beside
            ``NAME.tiff``) or "eyecandies" (``NAME_image_4.png`` beside ``NAME_depth.png``).
    """

    folder: Path
    stem: str
    style: Literal["folders", "stem", "eyecandies"]


def identify(path: Path) -> SampleKey | None:
    """The sample that the file at `path` would belong to; None for other kinds of files."""
    if path.suffix.lower() not in _KNOWN or path.name.startswith("."):
        return None
    folder = path.parent
    number, separator, _ = path.name.partition("_")
    if separator and (folder / f"{number}_info_depth.yaml").is_file():
        return SampleKey(folder, number, "eyecandies")
    if folder.name in ("rgb", "xyz", "depth", "gt"):
        base = folder.parent
        if (base / "rgb").is_dir() and ((base / "xyz").is_dir() or (base / "depth").is_dir()):
            return SampleKey(base, path.stem, "folders")
    return SampleKey(folder, _ROLE_SUFFIX.sub("", path.stem), "stem")


def locate(
    key: SampleKey, name: str, defect: str | None, camera: Camera | Path | None, unit: Unit | None
) -> SampleSource:
    """The sample `key`, its files found; a cloud comes before a depth image where both are there.

    Args:
        key: which sample.
        name: what it shall be called.
        defect: its defect type; Eyecandies' own metadata come before this.
        camera: intrinsics; None looks for a camera file in the sample's folder and the three above it.
        unit: of coordinates; None takes the camera's, or metres.

    Raises:
        InputError: no photo, no geometry, or depth without a camera; says which names were looked for.
    """
    if key.style == "eyecandies":
        return eyecandies.source(key.folder, key.stem, name)
    rgb = _require(key, "an RGB image", list(_candidates(key, "rgb")))
    clouds, depths = list(_candidates(key, "xyz")), list(_candidates(key, "depth"))
    geometry = _require(key, "a cloud or depth image", clouds + depths)
    is_depth = geometry in depths
    camera = camera or _first(folder / file for folder in _upwards(key.folder) for file in _CAMERA_NAMES)
    if is_depth and camera is None:
        raise InputError(
            str(geometry),
            f"intrinsics for this depth image: {_CAMERA_NAMES[0]} with fx, fy, cx, cy beside it or above",
            "none",
        )
    mask = _first(_candidates(key, "gt"))
    return SampleFiles(rgb, geometry, is_depth, mask, camera, unit).source(name, defect)


def _candidates(key: SampleKey, role: Literal["rgb", "xyz", "depth", "gt"]) -> Iterator[Path]:
    """Every path that could play `role` in this sample, the most explicit first."""
    suffixes = {"rgb": _PHOTO, "xyz": _CLOUD, "depth": _DEPTH, "gt": _MASK}[role]
    if key.style == "folders":
        stems = [f"{role}/{key.stem}"]
    elif role == "gt":
        stems = [f"{key.stem}_gt", f"{key.stem}_mask"]
    else:
        stems = [f"{key.stem}_{role}"] + ([key.stem] if role != "depth" else [])
    for stem in stems:
        for suffix in suffixes:
            yield key.folder / f"{stem}{suffix}"
            yield key.folder / f"{stem}{suffix.upper()}"


def _require(key: SampleKey, what: str, candidates: list[Path]) -> Path:
    found = _first(iter(candidates))
    if found is None:
        tried: dict[str, list[str]] = {}
        for path in candidates:
            if path.suffix.islower():
                tried.setdefault(str(path.relative_to(key.folder).with_suffix("")), []).append(path.suffix)
        names = " ".join(f"{stem}({'|'.join(suffixes)})" for stem, suffixes in tried.items())
        raise InputError(f"sample {key.stem!r} in {key.folder}", f"{what}", f"none of {names}")
    return found


def _first(candidates: Iterator[Path]) -> Path | None:
    return next((path for path in candidates if path.is_file()), None)


def _upwards(folder: Path) -> list[Path]:
    return [folder, *folder.parents][:_CAMERA_LEVELS]
