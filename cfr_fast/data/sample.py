"""One type for every dataset, camera and file: an RGB image with an organized point cloud."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.points import measured, not_a_number
from cfr_fast.errors import InputError


@dataclass(frozen=True, eq=False)
class Sample:
    """One view of one part: a photo and, pixel by pixel, where its surface lies.

    Args:
        rgb: uint8 [H, W, 3].
        xyz: float32 (or float64, converted) [H, W, 3], metres, camera coordinates; a pixel without a
            measurement is (0, 0, 0). NaN also means "no measurement" and is turned into zeros.
        ground_truth: bool [H, W], True on defects; None where unknown. Non-zero numbers count as True.
        name: says which sample this is in tables, file names and errors.
        defect: defect type ("good" for a normal sample); None where unknown.

    Raises:
        InputError: wrong shape or dtype, sizes that differ, infinite coordinates, no pixel at all, or no
            valid point at all.
    """

    rgb: NDArray[np.uint8]
    xyz: NDArray[np.float32]
    ground_truth: NDArray[np.bool_] | None = None
    name: str = "sample"
    defect: str | None = None

    def __post_init__(self) -> None:
        rgb, xyz = np.asarray(self.rgb), np.asarray(self.xyz)
        where = f"of sample {self.name!r}"
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise InputError(f"rgb {where}", "a uint8 array of shape [H, W, 3]", _describe(rgb))
        if xyz.ndim != 3 or xyz.shape[2] != 3 or xyz.dtype not in (np.float32, np.float64):
            raise InputError(f"xyz {where}", "a float32 array of shape [H, W, 3] in metres", _describe(xyz))
        if rgb.shape[:2] != xyz.shape[:2]:
            raise InputError(
                f"xyz {where}",
                f"the height and width of rgb, {rgb.shape[0]}×{rgb.shape[1]}",
                f"{xyz.shape[0]}×{xyz.shape[1]}",
            )
        if rgb.size == 0:
            raise InputError(f"rgb {where}", "at least one pixel", _describe(rgb))
        xyz = xyz.astype(np.float32, copy=True)
        xyz[not_a_number(xyz)] = 0.0
        if not np.isfinite(xyz).all():
            raise InputError(f"xyz {where}", "finite coordinates (NaN or zeros where missing)", "infinity")
        if not xyz.any():
            raise InputError(
                f"xyz {where}", "at least one valid point", "a cloud whose points are all missing"
            )
        ground_truth = self.ground_truth
        if ground_truth is not None:
            ground_truth = np.asarray(ground_truth)
            if ground_truth.shape != rgb.shape[:2]:
                raise InputError(f"ground_truth {where}", f"shape {rgb.shape[:2]}", _describe(ground_truth))
            ground_truth = np.ascontiguousarray(ground_truth != 0)
        object.__setattr__(self, "rgb", np.ascontiguousarray(rgb))
        object.__setattr__(self, "xyz", np.ascontiguousarray(xyz))
        object.__setattr__(self, "ground_truth", ground_truth)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """bool [H, W]: pixels with a measured point (any coordinate non-zero)."""
        return measured(self.xyz)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]

    @property
    def is_anomalous(self) -> bool | None:
        """Whether the sample is known to have a defect; None where nothing is known."""
        if self.defect is not None:
            return self.defect != "good"
        return None if self.ground_truth is None else bool(self.ground_truth.any())


@dataclass(frozen=True)
class SampleSource:
    """A sample that is read from disk, or made, when it is needed: what a dataset lists.

    Args:
        name: unique inside its dataset, for example ``test/bent/003``.
        load: reads the sample; raises InputError that names the file at fault.
        defect: defect type ("good" for a normal sample); None where unknown.
        files: what it is read from; none where it is made.
    """

    name: str
    load: Callable[[], Sample] = field(repr=False, compare=False)
    defect: str | None = None
    files: tuple[Path, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Category:
    """One category of a dataset: normal training samples, and test samples of both kinds."""

    name: str
    train: tuple[SampleSource, ...]
    test: tuple[SampleSource, ...]
    validation: tuple[SampleSource, ...] = ()


def _describe(array: NDArray[np.generic]) -> str:
    return f"{array.dtype} of shape {list(array.shape)}"
