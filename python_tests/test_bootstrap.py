"""Metrics on resampled test images against the same metrics of images that are really repeated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from tolerances import TOLERANCE

from cfr_fast.evaluation import aupro, image_auroc, level_curves, pixel_auroc
from cfr_fast.evaluation.bootstrap import draw_resamples, interval, resampled_areas, resampled_auroc
from cfr_fast.evaluation.level_curves import LEVELS, choose_levels, defect_of
from cfr_fast.evaluation.measure import Findings, Truth
from cfr_fast.evaluation.ranks import below_levels
from cfr_fast.evaluation.results import LIMITS, WITH_INTERVAL
from cfr_fast.ops import loader


def repeated(images: list, weights: np.ndarray) -> list:
    return [image for image, times in zip(images, weights.astype(int), strict=True) for _ in range(times)]


def check(maps: list, masks: list, tolerance: str, count: int) -> None:
    """Every resample of the curves against the images repeated."""
    weights = draw_resamples([bool(mask.any()) for mask in masks], count)
    defects = [defect_of(mask) for mask in masks]
    pro, roc = (level_curves.level_curves(maps, defects, by_region=kind) for kind in (True, False))
    areas, ranks = resampled_areas(pro, weights, (*LIMITS, 1.0)), resampled_areas(roc, weights, (1.0,))
    for row, area, rank in zip(weights, areas, ranks[:, 0], strict=True):
        pair = repeated(maps, row), repeated(masks, row)
        assert_allclose(area, aupro(*pair, (*LIMITS, 1.0)), **TOLERANCE[tolerance])
        assert_allclose(rank, pixel_auroc(*pair), **TOLERANCE[tolerance])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4, 40]), st.booleans())
def test_where_scores_are_few_it_is_the_metric_of_the_images_repeated(seed, levels, native) -> None:
    rng = np.random.default_rng(seed)
    maps = [(rng.integers(-levels, levels, (7, 9)) / 4).astype(np.float32) for _ in range(6)]
    masks = [np.zeros((7, 9), dtype=bool) for _ in maps]
    for mask in masks[2:]:
        mask[:] = rng.random(mask.shape) < 0.3
        mask[0, 0] = True
    with pytest.MonkeyPatch.context() as patch:
        if not native:
            patch.setattr(loader, "load", lambda: None)
        check(maps, masks, "resampled_areas", 8)


def smooth_maps(count: int, size: int) -> tuple[list, list]:
    """Maps as a method's: 0 outside a disc, smooth noise inside, somewhat more on most of the defects."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:size, :size] / size - 0.5
    maps, masks = [], []
    for index in range(count):
        mask = np.zeros((size, size), dtype=bool)
        for _ in range(index % 4):
            cy, cx = rng.uniform(-0.25, 0.25, 2)
            mask |= np.hypot(y - cy, x - cx) < rng.uniform(0.02, 0.08)
        noise = ndimage.gaussian_filter(rng.standard_normal((size, size)), 2)
        scores = np.abs(noise / noise.std() + rng.uniform(0, 3) * mask) * rng.uniform(0.8, 1.3)
        maps.append(np.where(np.hypot(y, x) < 0.4, scores, 0).astype(np.float32))
        masks.append(mask)
    return maps, masks


@pytest.mark.parametrize("sample", [1 << 17, 4000])
def test_where_they_are_many_it_is_so_up_to_the_levels(sample, monkeypatch) -> None:
    monkeypatch.setattr(level_curves, "SAMPLE", sample)
    maps, masks = smooth_maps(16, 72)
    levels = choose_levels(maps, [defect_of(mask) for mask in masks])
    assert 100 < levels.size <= LEVELS
    assert (np.diff(levels) > 0).all()
    check(maps, masks, "resampled_areas.levels", 12)


def test_pixels_on_a_grid_stand_for_the_others(monkeypatch) -> None:
    """A quarter of the pixels outside the defects, on smooth maps as those of features on a grid are."""
    monkeypatch.setattr(level_curves, "COUNTED", 72 * 72 // 4)
    maps, masks = smooth_maps(16, 72)
    calls = []

    def counted(scores, mask, levels):
        calls.append(scores.shape)
        return below_levels(scores, mask, levels)

    monkeypatch.setattr(level_curves, "below_levels", counted)
    check(maps, masks, "resampled_areas.grid", 12)
    assert set(calls) == {(36, 36)}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 5, 1000]))
def test_image_auroc_is_exact(seed, levels) -> None:
    rng = np.random.default_rng(seed)
    anomalous = rng.permutation([False] * 4 + [True] * 5)
    scores = rng.integers(0, levels, 9) / 7
    weights = draw_resamples(anomalous, 20)
    found = resampled_auroc(scores, anomalous, weights)
    for row, value in zip(weights.astype(int), found, strict=True):
        assert value == pytest.approx(image_auroc(np.repeat(scores, row), np.repeat(anomalous, row)))


def test_resamples_keep_the_number_of_each_kind() -> None:
    anomalous = np.arange(12) % 3 == 0
    weights = draw_resamples(anomalous)
    assert weights.shape == (1000, 12)
    assert (weights[:, anomalous].sum(axis=1) == 4).all()
    assert (weights[:, ~anomalous].sum(axis=1) == 8).all()
    assert_allclose(weights.mean(axis=0), 1, atol=0.15)
    assert_array_equal(weights, draw_resamples(anomalous))
    assert draw_resamples([False, True, True]) is None
    assert draw_resamples([True, True]).sum() == 2000


def test_an_interval_is_the_middle_of_what_is_defined() -> None:
    values = np.append(np.linspace(0, 1, 1001), np.full(10, np.nan))
    assert interval(values) == pytest.approx((0.025, 0.975))
    assert interval(np.full(3, np.nan)) is None


def test_four_times_the_images_halve_the_interval() -> None:
    rng = np.random.default_rng(0)
    width = {}
    for count in (30, 120, 480):
        scores = rng.normal(size=2 * count)
        scores[count:] += 1
        anomalous = np.arange(2 * count) >= count
        low, high = interval(resampled_auroc(scores, anomalous, draw_resamples(anomalous)))
        width[count] = high - low
        assert low < image_auroc(scores, anomalous) < high
    assert 1.5 < width[30] / width[120] < 2.7
    assert 1.5 < width[120] / width[480] < 2.7


def test_a_resample_without_a_region_has_no_figure() -> None:
    """Two anomalous images, of which one has no defect pixel left on the grid."""
    maps = [np.arange(12, dtype=np.float32).reshape(3, 4)] * 4
    masks = [np.zeros((3, 4), dtype=bool) for _ in maps]
    masks[3][2, 3] = True
    weights = np.array([[1, 1, 1, 1], [1, 1, 2, 0]], dtype=np.float32)
    curves = level_curves.level_curves(maps, [defect_of(mask) for mask in masks], by_region=True)
    found = resampled_areas(curves, weights, (0.3,))
    assert found[0, 0] == pytest.approx(aupro(maps, masks, 0.3), abs=1e-6)
    assert math.isnan(found[1, 0])
    none = level_curves.level_curves(maps[:3], [defect_of(mask) for mask in masks[:3]], by_region=True)
    assert np.isnan(resampled_areas(none, weights[:, :3], LIMITS)).all()


def test_gains_are_of_the_same_images() -> None:
    """Two rows may vary much from image to image, and their difference not at all."""
    maps, masks = smooth_maps(16, 40)
    truth = Truth([bool(mask.any()) for mask in masks], masks)
    rows = []
    for factor in (1.0, 1.0, 1.2):
        rows.append(Findings())
        for index, (values, mask) in enumerate(zip(maps, masks, strict=True)):
            better = np.where(mask, factor * values, values).astype(np.float32)
            rows[-1].add(better, better, float(better.max()) + index % 3)
    one, same, better = (row.measure(truth) for row in rows)
    assert set(one.intervals) == set(WITH_INTERVAL)
    assert same.gains(one) == dict.fromkeys(WITH_INTERVAL, (0.0, 0.0))
    gains = better.gains(one)
    for metric, (low, high) in gains.items():
        assert low <= better.metrics[metric] - one.metrics[metric] <= high
    for metric in ("p_auroc", "aupro_30_exact"):
        low, high = gains[metric]
        assert low > 0
        assert high - low < (one.intervals[metric][1] - one.intervals[metric][0]) / 2


@pytest.mark.parametrize("native", [True, False])
def test_counts_below_levels(native, monkeypatch) -> None:
    if not native:
        monkeypatch.setattr(loader, "load", lambda: None)
    rng = np.random.default_rng(1)
    scores = np.round(rng.normal(size=(30, 31)) * 20).astype(np.float32) / 4
    for mask in (rng.random(scores.shape) < 0.2, np.zeros(scores.shape, bool), np.ones(scores.shape, bool)):
        for levels in (
            np.array([-0.0, 0.25, 3.1], np.float32),
            np.unique(scores),
            np.array([9e9], np.float32),
        ):
            expected = [(scores[~mask] < level).sum() for level in levels]
            assert below_levels(scores, mask, levels).tolist() == expected
