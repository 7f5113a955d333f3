"""Where the scores of defect pixels stand among all others: what AUPRO and pixel AUROC are made of.

The definition is here, in numpy. Native code (csrc/evaluation) gives the same to the last bit: regions by
runs of pixels, a radix sort of the defect pixels alone, and a look-up among them for every other pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cfr_fast.errors import InputError
from cfr_fast.evaluation.scoremaps import Pair, Pairs, Scores
from cfr_fast.ops import loader

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

    The pairs are gone through twice, for their defect pixels and for all others; only the former are kept.

    Args:
        pairs: as `checked_pairs` gives them. Sums run in raster order, image by image.

    Raises:
        InputError: the second time there was another number of pixels; and what `pairs` raises.
    """
    library = loader.load()
    if library is None:
        return reference_defect_ranks(pairs)
    found = [library.module.defects_float32(np.empty((0, 0), np.float32), np.empty((0, 0), np.bool_))]
    double, pixels = False, 0
    for scores, mask in pairs:
        double |= scores.dtype.itemsize == 8
        kind = "float64" if scores.dtype.itemsize == 8 else "float32"
        found.append(getattr(library.module, f"defects_{kind}")(*_contiguous(scores, mask, kind)))
        pixels += mask.size
    kind = "float64" if double else "float32"
    scores = np.concatenate([part[0] for part in found]).astype(kind, copy=False)
    shares = np.concatenate([part[1] for part in found])
    regions = sum(part[2] for part in found)
    del found
    negatives = pixels - scores.size
    if scores.size == 0:
        none = np.empty(0, dtype=np.int64)
        return DefectRanks(none, np.empty(0), none, none, negatives)
    ranking = getattr(library.module, f"Ranking_{kind}")(scores, shares, regions)
    del scores, shares
    ranked = 0
    for values, mask in pairs:
        ranking.add(*_contiguous(values, mask, kind))
        ranked += mask.size
    _require_same(pixels, ranked)
    count, overlap, below, up_to = ranking.finish()
    return DefectRanks(count, overlap, below, up_to, negatives)


def reference_defect_ranks(pairs: Pairs) -> DefectRanks:
    """The definition of `defect_ranks` in numpy."""
    scores, shares, pixels = _defects(pairs)
    distinct, group = np.unique(scores, return_inverse=True)
    below = np.zeros(distinct.size, dtype=np.int64)
    up_to = np.zeros(distinct.size, dtype=np.int64)
    negatives = 0
    for chunk in _chunks(values[~mask] if mask.any() else values.reshape(-1) for values, mask in pairs):
        chunk.sort()
        below += np.searchsorted(chunk, distinct, side="left")
        up_to += np.searchsorted(chunk, distinct, side="right")
        negatives += chunk.size
    _require_same(pixels, negatives + scores.size)
    return DefectRanks(
        count=np.bincount(group, minlength=distinct.size),
        overlap=np.bincount(group, weights=shares, minlength=distinct.size).astype(np.float64, copy=False),
        below=below,
        up_to=up_to,
        negatives=negatives,
    )


def region_shares(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For every defect pixel of one image, in raster order, 1 / size of its 8-connected region.

    Args:
        mask: bool [H, W].

    Returns:
        float64 [D].
    """
    library = loader.load()
    if library is None:
        return _shares(mask)[0]
    return np.asarray(
        library.module.defects_float32(*_contiguous(mask.astype(np.float32), mask, "float32"))[1]
    )


def below_levels(
    scores: NDArray[np.float32], mask: NDArray[np.bool_], levels: NDArray[np.float32]
) -> NDArray[np.int64]:
    """How many pixels outside the defects of one image score less than each level.

    Args:
        scores: float32 [H, W], finite.
        mask: bool [H, W], the defects.
        levels: float32 [K], at least one, distinct, ascending.

    Returns:
        int64 [K].
    """
    library = loader.load()
    if library is None:
        return np.searchsorted(np.sort(scores[~mask]), levels, side="left")
    # Levels take the place of defect scores: each is looked up for, whoever it stands for.
    ranking = library.module.Ranking_float32(levels, np.ones(levels.size), 1)
    ranking.add(*_contiguous(scores, mask, "float32"))
    return np.asarray(ranking.finish()[2])


def _require_same(first: int, second: int) -> None:
    if first != second:
        raise InputError(
            "maps, ground_truth", "the same images each time they are read", f"{first}, then {second} pixels"
        )


def _contiguous(scores: Scores, mask: NDArray[np.bool_], kind: str) -> Pair:
    return np.ascontiguousarray(scores, dtype=kind), np.ascontiguousarray(mask)


def _defects(pairs: Pairs) -> tuple[Scores, NDArray[np.float64], int]:
    """Scores of defect pixels; what each adds to PRO, 1 / (its region's size · regions); and all pixels."""
    scores: list[Scores] = [np.empty(0, dtype=np.float32)]
    shares: list[NDArray[np.float64]] = [np.empty(0)]
    regions = pixels = 0
    for values, mask in pairs:
        pixels += mask.size
        if not mask.any():
            continue
        own, count = _shares(mask)
        scores.append(values[mask])
        shares.append(own)
        regions += count
    return np.concatenate(scores), np.concatenate(shares) / max(regions, 1), pixels


def _shares(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], int]:
    """1 / size of its region for every defect pixel, and the number of regions."""
    label, count = ndimage.label(mask, structure=_EIGHT_CONNECTED)
    inside = label[mask]
    return 1.0 / np.bincount(inside)[inside], int(count)


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
