"""Score maps and their ground truth: what comes in is checked here, once, for every pixel metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfr_fast.errors import InputError

Image: TypeAlias = "NDArray[Any] | Tensor"
Images: TypeAlias = "NDArray[Any] | Tensor | Iterable[Image] | Callable[[], Iterable[Image]]"
Scores: TypeAlias = "NDArray[np.floating[Any]]"
Pair: TypeAlias = "tuple[Scores, NDArray[np.bool_]]"
Pairs: TypeAlias = "Iterable[Pair]"
"""Of every image finite scores, float32 or float64 [H, W], and defects, bool [H, W]; the same each time."""

_EXPECTED = "an array [N, H, W], or arrays [H, W] one by one"
_NOTHING = object()


def checked_pairs(maps: Images, ground_truth: Images) -> Pairs:
    """Pair every map with its ground truth; no copies where the types already fit.

    The pairs can be gone through several times, and all are checked anew each time: what an iterable gives
    needs not be in memory as a whole. An iterator or generator, which can be read but once, is read now and
    its checked pairs are kept.

    Args:
        maps: [N, H, W]; or N arrays [H, W] of any sizes, in a list, a generator, any iterable, or what a
            callable without arguments returns; numpy or torch on any device, real numbers. Float32 and
            float64 are kept, narrower floats become float32, everything else float64.
        ground_truth: the same shapes; bool or integers (non-zero is defect), or floats that are 0 or 1.

    Returns:
        N pairs (scores float [H, W], defect bool [H, W]).

    Raises:
        InputError: now or when they are gone through: shapes or counts differ, NaN or Inf in a map, a float
            mask with other values than 0 and 1; the message names the index.
    """
    sources = _Source(maps, "maps"), _Source(ground_truth, "ground_truth")
    pairs = _CheckedPairs(*sources)
    return list(pairs) if any(source.once for source in sources) else pairs


def numbers(values: Any) -> NDArray[Any]:
    """An array of whatever holds numbers; tensors come from any device, bfloat16 as float32."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        # numpy has no bfloat16
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    return np.asarray(values)


class _Source:
    """Images that can be gone through again and again, unless `once`."""

    def __init__(self, images: Images, argument: str) -> None:
        if isinstance(images, Tensor | np.ndarray):
            if images.ndim != 3:
                raise InputError(argument, _EXPECTED, f"an array of shape {list(images.shape)}")
        elif not (callable(images) or isinstance(images, Iterable)) or isinstance(images, str | bytes):
            raise InputError(argument, _EXPECTED, type(images).__name__)
        self.argument = argument
        self.once = isinstance(images, Iterator)
        self._images = images

    def __iter__(self) -> Iterator[NDArray[Any]]:
        images: Any = self._images
        if not isinstance(images, Iterable):
            images = images()
        for index, image in enumerate(images):
            array = numbers(image)
            if array.ndim != 2:
                raise InputError(f"{self.argument}[{index}]", "an array [H, W]", f"shape {list(array.shape)}")
            yield array


class _CheckedPairs:
    def __init__(self, maps: _Source, ground_truth: _Source) -> None:
        self._maps, self._ground_truth = maps, ground_truth

    def __iter__(self) -> Iterator[Pair]:
        maps, masks = iter(self._maps), iter(self._ground_truth)
        index = 0
        while True:
            scores, mask = next(maps, _NOTHING), next(masks, _NOTHING)
            if scores is _NOTHING and mask is _NOTHING:
                return
            if scores is _NOTHING or mask is _NOTHING:
                more = sum(1 for _ in (maps if mask is _NOTHING else masks)) + 1
                counts = (index + more, index) if mask is _NOTHING else (index, index + more)
                raise InputError("ground_truth", f"{counts[0]} images, one for each map", f"{counts[1]}")
            yield _checked_pair(index, scores, mask)  # type: ignore[arg-type]
            index += 1


def _checked_pair(index: int, scores: NDArray[Any], mask: NDArray[Any]) -> Pair:
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
