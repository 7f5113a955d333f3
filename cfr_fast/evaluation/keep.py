"""The maps of a run, gathered as its test images come."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.sample import Sample
from cfr_fast.evaluation.detector import Prediction
from cfr_fast.evaluation.protocol import grid_truth
from cfr_fast.evaluation.store import Evidence, Images

KEEP = ("none", "first", "all")
"""Whose maps are kept: nobody's; those of the first method and the first seed, for every number of shots; or
everybody's. On 224×224 pixels a run's maps take 0.3 MB for each test image, and the images, once for each
category, as much again: about 0.35 GB for one run of each category of MVTec 3D-AD (1,197 test images)."""


class Keeper:
    """Gathers one run's `Evidence`, and the `Images` that it lies over."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._arrays: dict[str, list[NDArray[Any]]] = {}
        self._levels = float("inf"), float("inf")

    def add(self, sample: Sample, result: Prediction) -> None:
        """Take what is kept of one test image."""
        size = result.raw_map.shape[0]
        raw = np.asarray(result.raw_map, dtype=np.float32)
        mean = float(raw[raw != 0].mean()) if raw.any() else 1.0
        truth = grid_truth(sample, sample.defect or "", result, size)
        taken = {
            "map": np.asarray(result.localization_map, dtype=np.float16),
            "score_map": (raw / np.sqrt(mean)).astype(np.float16),
            "replaced": np.asarray(result.replaced, dtype=np.uint8),
            "valid": np.asarray(result.valid, dtype=np.uint8),
            "rgb": result.frame.grid_rgb(size),
            "depth": result.frame.grid_xyz(size)[..., 2].astype(np.float16),
            "truth": np.full((size, size), 255, np.uint8) if truth is None else truth.astype(np.uint8),
        }
        for name, array in taken.items():
            self._arrays.setdefault(name, []).append(array)
        self._names.append(sample.name)
        self._levels = float(result.threshold), float(result.pixel_threshold)

    def evidence(self) -> Evidence:
        """Of all images taken, at least one."""
        maps = {name: self._stacked(name) for name in ("map", "score_map", "replaced", "valid")}
        threshold, pixel_threshold = self._levels
        return Evidence(tuple(self._names), **maps, threshold=threshold, pixel_threshold=pixel_threshold)

    def images(self) -> Images:
        """Of all images taken, at least one."""
        return Images(tuple(self._names), **{name: self._stacked(name) for name in ("rgb", "depth", "truth")})

    def _stacked(self, name: str) -> NDArray[Any]:
        return np.stack(self._arrays[name])
