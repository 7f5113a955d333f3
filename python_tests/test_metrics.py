"""AUPRO and AUROC against the authors' figures, against brute force, and where they have no meaning."""

from __future__ import annotations

import math
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from cfr_fast.errors import InputError
from cfr_fast.evaluation import aupro, image_auroc, pixel_auroc, pixel_auroc_map, pro_curve

LIMITS = (0.30, 0.10, 0.05, 0.01)


def brute_curve(maps, masks, thresholds=None):
    """The definition, threshold by threshold."""
    regions = []
    for scores, mask in zip(maps, masks, strict=True):
        label, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [scores[label == index] for index in range(1, count + 1)]
    negatives = np.sort(np.concatenate([s[~m] for s, m in zip(maps, masks, strict=True)]))
    if thresholds is None:
        levels = np.unique(np.concatenate([np.ravel(s) for s in maps]))[::-1]
        points = [((negatives >= t).mean(), np.mean([(r >= t).mean() for r in regions])) for t in levels]
        return np.array([(0.0, 0.0), *points]).T
    ranks = np.linspace(0, negatives.size - 1, thresholds, dtype=int)[::-1]
    points = [
        (1 - (r + 1) / negatives.size, np.mean([(x > negatives[r]).mean() for x in regions])) for r in ranks
    ]
    return np.array([*points, (1.0, 1.0)]).T


def brute_area(fpr, pro, limit):
    """Trapezoid segment by segment, cut at the limit."""
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr[:-1], fpr[1:], pro[:-1], pro[1:], strict=True):
        end = min(x1, limit)
        if end > x0:
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / limit


@st.composite
def scored_images(draw):
    """Up to four small images of different sizes, scores with many ties, some without defect."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.integers(1, 12))
    density = draw(st.sampled_from([0.05, 0.3, 0.6]))
    shapes = draw(st.lists(st.tuples(st.integers(2, 9), st.integers(2, 9)), min_size=1, max_size=4))
    maps = [rng.integers(-levels, levels, shape).astype(np.float32) / 4 for shape in shapes]
    masks = [(rng.random(shape) < density) & (rng.random() < 0.7) for shape in shapes]
    masks[0].flat[0], masks[0].flat[-1] = True, False
    return maps, masks


def test_sampled_aupro_is_that_of_the_golden_curve(golden: Path):
    unit = load_file(golden / "units.safetensors")
    fpr, pro = pro_curve(unit["aupro.maps"], unit["aupro.gt"], thresholds=99)
    assert fpr.shape == (100,)
    assert_allclose(fpr, unit["aupro.fpr"], rtol=0, atol=1e-12)
    assert_allclose(pro, unit["aupro.pro"], rtol=0, atol=1e-12)
    areas = aupro(unit["aupro.maps"], unit["aupro.gt"], LIMITS, thresholds=99)
    assert_allclose(areas, unit["aupro.at_30_10_5_1"], rtol=0, atol=1e-9)


def test_metrics_of_a_real_run_are_the_authors(golden: Path):
    run = load_file(golden / "inference.safetensors")
    maps, truth, scores = run["all.maps"], run["all.gt"], run["all.image_scores"]
    assert_allclose(aupro(maps, truth, LIMITS, thresholds=99), run["all.aupro"], rtol=0, atol=1e-9)
    assert image_auroc(scores, run["all.image_labels"]) == pytest.approx(float(run["all.i_auroc"]))
    # The stored maps are s / m, m the mean of non-zero s, and the score is max(s) / √m: so m is known.
    means = (scores / maps.max(axis=(1, 2))) ** 2
    scaled = [pixel_auroc_map(m * s) for m, s in zip(means, maps, strict=True)]
    assert pixel_auroc(scaled, truth) == pytest.approx(float(run["all.p_auroc"]), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(scored_images())
def test_exact_aupro_and_auroc_are_brute_force(images):
    maps, masks = images
    expected = brute_curve(maps, masks)
    fpr, pro = pro_curve(maps, masks)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(pro) >= 0).all()
    assert (fpr[0], pro[0], fpr[-1], pro[-1]) == (0, 0, 1, 1)
    # Every point of the definition lies on the corners-only curve.
    for x, y in expected.T:
        beside = max(int(np.searchsorted(fpr, x, side="left")), 1)
        rise = pro[(fpr >= x - 1e-12) & (fpr <= x + 1e-12)]
        line = np.interp(x, fpr[beside - 1 : beside + 1], pro[beside - 1 : beside + 1])
        assert min(rise.min(initial=line), line) - 1e-9 <= y <= max(rise.max(initial=line), line) + 1e-9
    for limit in (0.05, 0.3, 1.0):
        assert aupro(maps, masks, limit) == pytest.approx(brute_area(*expected, limit), abs=1e-9)
    pixels, truth = (np.concatenate([np.ravel(x) for x in y]) for y in images)
    assert pixel_auroc(maps, masks) == pytest.approx(roc_auc_score(truth, pixels), abs=1e-12)
    assert image_auroc(pixels, truth) == pytest.approx(roc_auc_score(truth, pixels), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(scored_images(), st.sampled_from([2, 7, 99]))
def test_sampled_curve_is_brute_force(images, thresholds):
    fpr, pro = brute_curve(*images, thresholds)
    found = pro_curve(*images, thresholds)
    assert_allclose(found, (fpr, pro), rtol=0, atol=1e-12)
    assert aupro(*images, 0.3, thresholds) == pytest.approx(brute_area(fpr, pro, 0.3), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(scored_images())
def test_only_the_order_of_scores_matters(images):
    maps, masks = images
    moved = [np.exp(scores.astype(np.float64)) * 3 - 7 for scores in maps]
    assert aupro(moved, masks, LIMITS) == aupro(maps, masks, LIMITS)
    assert aupro(moved, masks, LIMITS, 99) == aupro(maps, masks, LIMITS, 99)
    assert pixel_auroc(moved, masks) == pixel_auroc(maps, masks)


def test_numpy_torch_and_lists_agree():
    rng = np.random.default_rng(0)
    maps, masks = rng.random((3, 8, 9)).astype(np.float32), rng.random((3, 8, 9)) < 0.2
    before = maps.copy()
    expected = aupro(maps, masks)
    same = [
        (torch.from_numpy(maps), torch.from_numpy(masks)),
        (list(maps), [mask.astype(np.uint8) * 255 for mask in masks]),
        (maps.astype(np.float64), masks.astype(np.float32)),
        (torch.from_numpy(maps).requires_grad_(), torch.from_numpy(masks).float()),
    ]
    assert [aupro(*pair) for pair in same] == [expected] * len(same)
    assert_array_equal(maps, before)
    for once in (True, False):  # generators, and callables whose every call begins anew
        makers = [lambda maps=maps: (m for m in maps), lambda: (torch.from_numpy(m) for m in masks)]
        same_again = [maker() if once else maker for maker in makers]
        assert aupro(*same_again, LIMITS) == aupro(maps, masks, LIMITS)
    rounded = torch.from_numpy(maps).bfloat16()
    assert aupro(rounded, masks) == aupro(rounded.float(), masks)
    assert aupro(maps.astype(np.float16), masks) == pytest.approx(expected, abs=0.02)
    assert aupro(maps, masks, np.float32(0.25)) == aupro(maps, masks, 0.25)
    scores, labels = torch.tensor([0.5, 1.5, 1.0]).bfloat16().requires_grad_(), torch.tensor([0, 1, 1])
    assert image_auroc(scores, labels) == image_auroc([0.5, 1.5, 1.0], [False, True, True]) == 1


class Counted:
    """Arrays that exist only while somebody holds them."""

    def __init__(self, make, count):
        self.make, self.count, self.alive, self.most, self.rounds = make, count, 0, 0, 0

    def __iter__(self):
        self.rounds += 1
        for index in range(self.count):
            array = self.make(index)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(array, self._gone)
            yield array
            del array

    def _gone(self):
        self.alive -= 1


def test_images_are_held_one_at_a_time():
    rng = np.random.default_rng(1)
    maps, masks = rng.random((6, 9, 7)), rng.random((6, 9, 7)) < 0.2
    lazy = Counted(lambda index: maps[index].copy(), 6)
    assert aupro(lazy, masks, LIMITS) == aupro(maps, masks, LIMITS)
    assert lazy.rounds == 2
    assert lazy.most <= 2  # the next is made while the last is let go


def test_images_that_change_between_readings_are_refused():
    maps, masks = iter([np.ones((3, 4, 4)), np.ones((2, 4, 4))]), iter([[np.eye(4)] * 3, [np.eye(4)] * 2])
    with pytest.raises(InputError, match="same images"):
        aupro(lambda: next(maps), lambda: next(masks))
    spent = iter(np.ones((3, 4, 4)))
    with pytest.raises(InputError, match="expected 0 images"):
        aupro(lambda: spent, [np.eye(4)] * 3)


def test_every_region_weighs_the_same():
    scores, mask = np.zeros((10, 10)), np.zeros((10, 10), dtype=bool)
    mask[:4, :4] = mask[8, 8] = True
    # A pixel that touches the large region at a corner belongs to it.
    mask[4, 4] = True
    scores[8, 8] = 1.0
    fpr, pro = pro_curve([scores], [mask])
    assert (fpr[1], pro[2]) == (0.0, 0.5)
    assert aupro([scores], [mask], 0.3) == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_a_constant_map_is_chance():
    masks = np.zeros((2, 10, 10), dtype=bool)
    masks[0, :3, :3] = True
    maps = np.full(masks.shape, 0.7, dtype=np.float32)
    assert aupro(maps, masks, 0.3) == pytest.approx(0.15)
    assert pixel_auroc(maps, masks) == 0.5


def test_a_perfect_map_is_one_and_its_reverse_zero():
    masks = np.zeros((2, 10, 10), dtype=bool)
    masks[0, :3, :3] = masks[1, 5:, 5:] = True
    maps = masks.astype(np.float32)
    assert aupro(maps, masks, LIMITS) == (1.0,) * 4
    assert pixel_auroc(maps, masks) == 1.0
    assert pixel_auroc(-maps, masks) == 0.0
    assert aupro(maps - 2 * maps + np.arange(100).reshape(10, 10) * 1e-3, masks, 0.3) == 0.0


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("thresholds", [None, 99])
def test_without_defects_or_without_anything_else_there_is_no_figure(fill, thresholds):
    maps, masks = np.zeros((2, 4, 4)), np.full((2, 4, 4), fill)
    assert math.isnan(aupro(maps, masks, thresholds=thresholds))
    assert all(math.isnan(area) for area in aupro(maps, masks, LIMITS, thresholds))
    assert math.isnan(pixel_auroc(maps, masks))
    assert math.isnan(image_auroc([0.1, 0.2], [fill, fill]))


def test_no_images_at_all_have_no_figure():
    assert math.isnan(aupro([], []))
    assert math.isnan(pixel_auroc(np.zeros((0, 4, 4)), np.zeros((0, 4, 4), dtype=bool)))
    assert math.isnan(image_auroc([], []))


@pytest.mark.parametrize(
    ("maps", "truth", "names"),
    [
        ([np.zeros((4, 4)), np.full((4, 4), np.nan)], [np.ones((4, 4))] * 2, "maps[1]"),
        ([np.zeros((4, 4)), np.full((4, 4), np.inf)], [np.ones((4, 4))] * 2, "maps[1]"),
        ([np.zeros((4, 4)), np.zeros((4, 5))], [np.zeros((4, 4))] * 2, "ground_truth[1]"),
        ([np.zeros((4, 4))], [np.zeros((4, 4))] * 2, "expected 1 images"),
        ([np.zeros((4, 4))], [np.full((4, 4), 0.5)], "ground_truth[0]"),
        ([np.zeros((4, 4)), np.zeros(4)], [np.zeros((4, 4))] * 2, "maps[1]"),
        (np.zeros((4, 4)), np.zeros((4, 4)), "maps"),
        ("maps.npy", np.zeros((4, 4)), "maps"),
        ([np.zeros((4, 4), dtype=complex)], [np.zeros((4, 4))], "maps[0]"),
        ([np.zeros((4, 4))], [np.full((4, 4), "x")], "ground_truth[0]"),
        (lambda: (np.zeros((4, 4)) for _ in range(3)), [np.zeros((4, 4))] * 2, "expected 3 images"),
        (lambda: [np.full((2, 2), np.nan)], [np.zeros((2, 2))], "maps[0]"),
        (3, [np.zeros((2, 2))], "maps"),
    ],
)
@pytest.mark.parametrize("metric", [aupro, pixel_auroc])
def test_bad_maps_are_named(metric, maps, truth, names):
    with pytest.raises(InputError) as raised:
        metric(maps, truth)
    assert names in str(raised.value)


@pytest.mark.parametrize("limit", [0, -0.1, 1.5, math.nan, (0.3, 0.0)])
def test_a_limit_outside_its_range_is_refused(limit):
    with pytest.raises(InputError, match="limit"):
        aupro(np.zeros((1, 2, 2)), np.eye(2)[None], limit)


@pytest.mark.parametrize("thresholds", [0, 1])
def test_too_few_thresholds_are_refused(thresholds):
    with pytest.raises(InputError, match="thresholds"):
        aupro(np.zeros((1, 2, 2)), np.eye(2)[None], thresholds=thresholds)


@pytest.mark.parametrize(("scores", "labels"), [([1, 2], [1]), ([[1, 2]], [[0, 1]]), ([1, math.nan], [0, 1])])
def test_bad_image_scores_are_refused(scores, labels):
    with pytest.raises(InputError, match=r"scores|labels"):
        image_auroc(scores, labels)


def test_scaling_for_pixel_auroc():
    raw = np.array([[0, 4], [0, 0]], dtype=np.float32)
    assert_allclose(pixel_auroc_map(raw), [[0, 4], [0, 0]])
    assert_allclose(pixel_auroc_map(4 * raw), [[0, 8], [0, 0]])
    assert_array_equal(pixel_auroc_map(np.zeros((2, 2))), np.zeros((2, 2)))
