"""Rows that need no model: noise that is the same for ever, and no better than the mask."""

from __future__ import annotations

import numpy as np
import pytest

from cfr_fast.evaluation import aupro, pixel_auroc
from cfr_fast.evaluation.no_model import mask_map, random_map, random_score

LIMITS = (0.30, 0.10, 0.05, 0.01)


def disc(size: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.hypot(y, x) < radius


def test_noise_depends_on_names_and_seed_alone() -> None:
    valid = disc(24, 10)
    noise, score = random_map(valid, "dowel", "test/bent/003", 42), random_score("dowel", "test/bent/003", 42)
    assert noise.dtype == np.float32
    assert np.array_equal(noise, random_map(valid.astype(np.uint8), "dowel", "test/bent/003", 42))
    assert score == random_score("dowel", "test/bent/003", 42)
    for names in (("dowel", "test/bent/004"), ("tire", "test/bent/003")):
        assert not np.array_equal(noise, random_map(valid, *names, 42))
        assert score != random_score(*names, 42)
    assert not np.array_equal(noise, random_map(valid, "dowel", "test/bent/003", 0))
    assert score != random_score("dowel", "test/bent/003", 0)
    # The same pixel has the same noise, whatever else is valid.
    assert np.array_equal(
        noise[disc(24, 5)], random_map(disc(24, 5), "dowel", "test/bent/003", 42)[disc(24, 5)]
    )


def test_noise_is_uniform_on_the_object_and_nothing_elsewhere() -> None:
    valid = disc(200, 80)
    noise = random_map(valid, "dowel", "a", 0)
    assert not noise[~valid].any()
    assert noise[valid].min() > 0
    assert noise[valid].max() <= 1
    counts = np.histogram(noise[valid], np.linspace(0, 1, 11))[0]
    assert counts == pytest.approx(valid.sum() / 10, rel=0.1)
    scores = [random_score("dowel", f"{index}", 0) for index in range(2000)]
    assert np.histogram(scores, np.linspace(0, 1, 5))[0] == pytest.approx(500, rel=0.2)


def test_noise_is_worth_what_the_mask_is() -> None:
    """That is what ties mean in the exact metrics: any order of them, on average."""
    rng = np.random.default_rng(0)
    valid = [disc(64, rng.uniform(15, 30)) for _ in range(60)]
    truth = [np.roll(disc(64, 4), rng.integers(-20, 20, 2), (0, 1)) for _ in valid]
    noise = [random_map(mask, "dowel", f"{index}", 7) for index, mask in enumerate(valid)]
    masks = [mask_map(mask) for mask in valid]
    assert aupro(noise, truth, LIMITS) == pytest.approx(aupro(masks, truth, LIMITS), abs=0.02)
    assert pixel_auroc(noise, truth) == pytest.approx(pixel_auroc(masks, truth), abs=0.02)
