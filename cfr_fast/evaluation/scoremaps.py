"""Score maps and their ground truth: what comes in is checked here, once, for every pixel metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfr_fast.errors import InputError

Images: TypeAlias = "NDArray[Any] | Tensor | Sequence[NDArray[Any] | Tensor]"
Scores: TypeAlias = "NDArray[np.floating[Any]]"


def checked_pairs(maps: Images, ground_truth: Images) -> list[tuple[Scores, NDArray[np.bool_]]]:
    """Pair every map with its ground truth; no copies where the types already fit.

    Args:
        maps: [N, H, W], or N arrays [H, W] of any sizes; numpy or torch, real numbers. Float32 and float64
            are kept, narrower floats become float32, everything else float64.
        ground_truth: the same shapes; bool or integers (non-zero is defect), or floats that are 0 or 1.

    Returns:
        N pairs (scores float [H, W], defect bool [H, W]).

    Raises:
        InputError: shapes or counts differ, NaN or Inf in a map, a float mask with other values than 0 and
            1; the message names the index.
    """
    map_list, mask_list = _images(maps, "maps"), _images(ground_truth, "ground_truth")
    if len(map_list) != len(mask_list):
        raise InputError("ground_truth", f"{len(map_list)} images, one for each map", f"{len(mask_list)}")
    return [
        _checked_pair(index, scores, mask)
        for index, (scores, mask) in enumerate(zip(map_list, mask_list, strict=True))
    ]


def _images(images: Images, argument: str) -> list[NDArray[Any]]:
    expected = "an array [N, H, W] or a list of arrays [H, W]"
    if isinstance(images, Tensor | np.ndarray):
        if images.ndim != 3:
            raise InputError(argument, expected, f"an array of shape {list(images.shape)}")
        return list(_numpy(images))
    if not isinstance(images, Sequence) or isinstance(images, str | bytes):
        raise InputError(argument, expected, type(images).__name__)
    arrays = [_numpy(image) for image in images]
    for index, array in enumerate(arrays):
        if array.ndim != 2:
            raise InputError(f"{argument}[{index}]", "an array [H, W]", f"shape {list(array.shape)}")
    return arrays


def _numpy(image: NDArray[Any] | Tensor) -> NDArray[Any]:
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        # numpy has no bfloat16
        return np.asarray(image.float() if image.dtype == torch.bfloat16 else image)
    return np.asarray(image)


def _checked_pair(index: int, scores: NDArray[Any], mask: NDArray[Any]) -> tuple[Scores, NDArray[np.bool_]]:
    if scores.dtype.kind not in "fiub":
        raise InputError(f"maps[{index}]", "real numbers", f"dtype {scores.dtype}")
    if mask.dtype.kind not in "fiub":
        raise InputError(f"ground_truth[{index}]", "bool or 0 and 1", f"dtype {mask.dtype}")
    if scores.shape != mask.shape:
        raise InputError(
            f"ground_truth[{index}]", f"shape {list(scores.shape)} as its map", f"shape {list(mask.shape)}"
        )
    if scores.dtype.kind != "f":
        scores = scores.astype(np.float64)
    elif scores.dtype.itemsize not in (4, 8):
        scores = scores.astype(np.float32 if scores.dtype.itemsize < 4 else np.float64)
    if not np.isfinite(scores).all():
        raise InputError(f"maps[{index}]", "finite scores", "NaN or infinity")
    defect = mask if mask.dtype == np.bool_ else mask != 0
    if mask.dtype.kind == "f" and not np.array_equal(mask, defect):
        raise InputError(f"ground_truth[{index}]", "only 0 and 1 in a float mask", "other values")
    return scores, defect
