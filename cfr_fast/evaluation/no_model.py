"""Verdicts that need no model: what a table's figures are worth is seen beside them."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS = 4096


def mask_map(valid: NDArray[Any]) -> NDArray[np.float32]:
    """The map of "mask only": 1 where the prepared sample has a point, 0 elsewhere; float32, as `valid`."""
    return np.asarray(valid, dtype=np.float32)


def random_map(valid: NDArray[Any], category: str, name: str, seed: int) -> NDArray[np.float32]:
    """The map of "random": independent noise on the valid pixels, uniform in k / 4096 ≤ 1, and 0 elsewhere.

    Over many draws its exact AUPRO and its pixel AUROC are those of `mask_map`, whose ties are such a draw's
    mean; a single one shows how far luck goes, and has thresholds to sample, which a mask has not. Nothing is
    normalised: the mean that localisation maps are divided by would be about 1/2 for every image.

    Args:
        valid: [H, W], non-zero where the prepared sample has a point.
        category, name: of the test image.
        seed: with the names it decides the noise: the same whenever, and in whatever order, it is asked for.

    Returns:
        float32 [H, W].
    """
    # So few levels that metrics, which look every score up, are as quick as on the smooth map of a method.
    steps = _generator("map", category, name, seed).integers(1, STEPS + 1, valid.shape, dtype=np.uint16)
    return np.where(np.asarray(valid) != 0, steps, np.uint16(0)).astype(np.float32) / np.float32(STEPS)


def random_score(category: str, name: str, seed: int) -> float:
    """The image score of "random", uniform in [0, 1): drawn as `random_map`, and independent of it.

    (The maximum of the noise would know how many valid pixels there are.)
    """
    return float(_generator("score", category, name, seed).random())


def _generator(what: str, category: str, name: str, seed: int) -> np.random.Generator:
    digest = sha256("\0".join((what, category, name, str(seed))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
