"""Where the scores of defect pixels stand among all others: what AUPRO and pixel AUROC are made of.

The definition is here, in numpy. Native code (csrc/evaluation) gives the same to the last bit: regions by
runs of pixels, then radix sorts of the defect pixels and, chunk by chunk, of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cfr_fast.evaluation.scoremaps import Scores
from cfr_fast.ops import loader

Pairs: TypeAlias = "list[tuple[Scores, NDArray[np.bool_]]]"

# The reference sorts this many negatives at a time (128 MiB of float32), so that memory stays bounded.
CHUNK = 1 << 25
_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class DefectRanks:
    """One entry for each of the D distinct scores that defect pixels have, ascending.

    Attributes:
        count: int64 [D], the defect pixels with this score.
        overlap: float64 [D], what they add to PRO, the mean over all 8-connected regions of all images of the
            share of the region that is found; together 1, up to rounding.
        below: int64 [D], the pixels outside all defects that score less.
        up_to: int64 [D], the pixels outside all defects that score at most as much.
        negatives: the pixels outside all defects.
    """

    count: NDArray[np.int64]
    overlap: NDArray[np.float64]
    below: NDArray[np.int64]
    up_to: NDArray[np.int64]
    negatives: int


def defect_ranks(pairs: Pairs) -> DefectRanks:
    """Rank defect pixels natively where the library can be loaded, else as `reference_defect_ranks`.

    Args:
        pairs: (finite scores, float32 or float64 [H, W]; defect, bool [H, W]) of every image, as
            `checked_pairs` gives them. Sums run in raster order, image by image.
    """
    library = loader.load()
    if library is None:
        return reference_defect_ranks(pairs)
    double = any(scores.dtype.itemsize == 8 for scores, _ in pairs)
    rank = library.module.defect_ranks_float64 if double else library.module.defect_ranks_float32
    dtype: Any = np.float64 if double else np.float32
    maps = [np.ascontiguousarray(scores, dtype=dtype) for scores, _ in pairs]
    count, overlap, below, up_to = rank(maps, [np.ascontiguousarray(mask) for _, mask in pairs])
    return DefectRanks(count, overlap, below, up_to, negatives=_pixels(pairs) - int(count.sum()))


def reference_defect_ranks(pairs: Pairs) -> DefectRanks:
    """The definition of `defect_ranks` in numpy."""
    scores, shares = _defects(pairs)
    distinct, group = np.unique(scores, return_inverse=True)
    below = np.zeros(distinct.size, dtype=np.int64)
    up_to = np.zeros(distinct.size, dtype=np.int64)
    for chunk in _chunks(values[~mask] if mask.any() else values.reshape(-1) for values, mask in pairs):
        chunk.sort()
        below += np.searchsorted(chunk, distinct, side="left")
        up_to += np.searchsorted(chunk, distinct, side="right")
    return DefectRanks(
        count=np.bincount(group, minlength=distinct.size),
        overlap=np.bincount(group, weights=shares, minlength=distinct.size).astype(np.float64, copy=False),
        below=below,
        up_to=up_to,
        negatives=_pixels(pairs) - scores.size,
    )


def _pixels(pairs: Pairs) -> int:
    return sum(mask.size for _, mask in pairs)


def _defects(pairs: Pairs) -> tuple[Scores, NDArray[np.float64]]:
    """Scores of all defect pixels, and what each adds to PRO: 1 / (its region's size · regions)."""
    scores: list[Scores] = [np.empty(0, dtype=np.float32)]
    shares: list[NDArray[np.float64]] = [np.empty(0)]
    regions = 0
    for values, mask in pairs:
        if not mask.any():
            continue
        label, count = ndimage.label(mask, structure=_EIGHT_CONNECTED)
        inside = label[mask]
        scores.append(values[mask])
        shares.append(1.0 / np.bincount(inside)[inside])
        regions += count
    return np.concatenate(scores), np.concatenate(shares) / max(regions, 1)


def _chunks(arrays: Iterable[Scores]) -> Iterator[Scores]:
    waiting: list[Scores] = []
    size = 0
    for array in arrays:
        waiting.append(array)
        size += array.size
        if size >= CHUNK:
            yield np.concatenate(waiting)
            waiting, size = [], 0
    if size:
        yield np.concatenate(waiting)
