"""Background removal: the recipes, and the policy that chooses among them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from sklearn.cluster import DBSCAN

from cfr_fast.data import eyecandies, mvtec3d, synthetic
from cfr_fast.data.background import PlaneRecipe, fit_plane
from cfr_fast.data.cluster import dbscan
from cfr_fast.data.preparation import is_prepared, prepare
from cfr_fast.data.sample import Category, Sample
from cfr_fast.errors import InputError

SIDE = 200
V, U = np.mgrid[:SIDE, :SIDE] - SIDE / 2
DISC = U**2 + V**2 < 40**2


def scene(depth: np.ndarray, pixel: float = 0.0005, seed: int = 0) -> Sample:
    """What a camera sees whose pixels are `pixel` metres apart at the mean depth."""
    spread = pixel * depth / depth.mean()
    rgb = np.random.default_rng(seed).integers(0, 256, (*depth.shape, 3), dtype=np.uint8)
    return Sample(rgb, np.stack([U * spread, V * spread, depth], axis=2))


def on_table(noise: float = 0.0005, seed: int = 0) -> Sample:
    """A disc 20 mm high on a tilted table."""
    grain = noise * np.random.default_rng(seed).normal(size=U.shape)
    return scene(0.6 + 0.0001 * V - 0.02 * DISC + grain)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("flat", [False, True])
def test_dbscan_is_scikit_learns(seed, flat):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(500, 4000))
    centres = rng.uniform(-1, 1, (4, 3))[rng.integers(0, 4, count)]
    points = centres + rng.normal(size=(count, 3)) * ([0.25, 0.25, 0.002] if flat else 0.2)
    for radius, least in [(0.05, 4), (0.1, 10), (0.15, 30), (0.4, 100)]:
        expected = DBSCAN(eps=radius, min_samples=least).fit(points).labels_
        np.testing.assert_array_equal(dbscan(points, radius, least), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.floats(0.01, 1.5), st.integers(1, 40))
def test_dbscan_on_any_small_cloud(seed, count, radius, least):
    points = np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 3))
    expected = DBSCAN(eps=radius, min_samples=least).fit(points).labels_
    np.testing.assert_array_equal(dbscan(points, radius, least), expected)


def test_dbscan_of_nothing_and_of_dense_sheets():
    assert dbscan(np.zeros((0, 3)), 0.1, 5).shape == (0,)
    sheet = np.stack([*np.mgrid[:300, :300], np.zeros((300, 300))], axis=-1).reshape(-1, 3) * 2e-4
    above = sheet[:30_000] + np.array([0, 0, 0.0061])
    labels = dbscan(np.concatenate([sheet, above]), 0.006, 30)  # 2,800 neighbours each
    np.testing.assert_array_equal(labels, np.repeat([0, 1], [90_000, 30_000]))


def test_plane_ignores_outliers_and_faces_the_camera():
    rng = np.random.default_rng(0)
    xy = rng.uniform(-0.1, 0.1, (5000, 2))
    depth = 0.5 + 0.3 * xy[:, 0] - 0.1 * xy[:, 1] + rng.normal(size=5000) * 0.0005
    depth[:2000] -= rng.uniform(0.02, 0.2, 2000)
    plane = fit_plane(np.column_stack([xy, depth]), 0.004, 1000, np.random.default_rng(1))
    truth = np.array([0.3, -0.1, -1]) / np.linalg.norm([0.3, -0.1, -1])
    np.testing.assert_allclose(plane.normal, truth, atol=1e-3)
    assert plane.support == pytest.approx(0.6, abs=0.01)
    assert plane.height(np.array([0, 0, 0.4])) == pytest.approx(-0.1 * truth[2], abs=1e-3)
    line = np.outer(np.arange(10.0), [1, 2, 3])
    assert fit_plane(line, 0.004, 100, rng) is None
    assert fit_plane(line[:2], 0.004, 100, rng) is None


@pytest.mark.parametrize("background", ["auto", "plane", "distance"])
@pytest.mark.parametrize("noise", [0.0, 0.0005, 0.001])
def test_object_stays_and_table_goes(background, noise):
    sample = on_table(noise)
    before = sample.xyz.copy()
    prepared = prepare(sample, background)
    np.testing.assert_array_equal(prepared.valid, DISC)
    np.testing.assert_array_equal(prepared.xyz[DISC], before[DISC])
    assert not prepared.xyz[~DISC].any()
    np.testing.assert_array_equal(sample.xyz, before)
    np.testing.assert_array_equal(prepared.rgb, sample.rgb)
    assert not is_prepared(sample)
    assert is_prepared(prepared)
    assert prepare(prepared, background).xyz.tobytes() == prepared.xyz.tobytes()


def test_everything_else_is_carried_along():
    sample = replace(on_table(), ground_truth=DISC, name="a/b", defect="dent")
    prepared = prepare(sample)
    assert (prepared.name, prepared.defect) == ("a/b", "dent")
    np.testing.assert_array_equal(prepared.ground_truth, DISC)


@pytest.mark.parametrize("scale", [2**-6, 2**-3, 2**3, 2**10])
def test_auto_serves_every_scale(scale):
    sample = on_table()
    scaled = replace(sample, xyz=sample.xyz * np.float32(scale))
    np.testing.assert_array_equal(prepare(scaled).valid, DISC)
    np.testing.assert_array_equal(prepare(scaled, "distance").valid, DISC)


def test_a_recipe_in_proportion_serves_another_scale():
    sample = on_table()
    small = replace(sample, xyz=sample.xyz / 8)
    with pytest.raises(InputError, match="background of sample"):
        prepare(small, "plane")
    recipe = PlaneRecipe(inlier_distance=0.0005, removal_distance=0.000625, cluster_radius=0.00075)
    np.testing.assert_array_equal(prepare(small, "plane", recipe=recipe).valid, DISC)


def test_walls_and_crumbs_go_by_distance():
    wall, crumb, abyss = (U < -90) & (V < 0), (abs(U - 70) < 3) & (abs(V) < 3), V > 97
    depth = 1.2 + 0.0001 * V - 0.02 * DISC - 0.03 * wall - 0.03 * crumb + 0.2 * abyss
    np.testing.assert_array_equal(prepare(scene(depth, pixel=0.002), "distance").valid, DISC)


def test_missing_points_do_no_harm():
    sample = on_table()
    holes = np.random.default_rng(1).random((SIDE, SIDE)) < 0.4
    sample = replace(sample, xyz=np.where(holes[..., None], 0, sample.xyz))
    np.testing.assert_array_equal(prepare(sample).valid, DISC & ~holes)


def test_seeded():
    sample = on_table(noise=0.002)
    first, again = (prepare(sample, "plane", seed=3).xyz for _ in range(2))
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("noise", [0.0, 0.0005])
def test_a_flat_surface_is_kept_whole(noise):
    sample = scene(0.6 + 0.0003 * U + noise * np.random.default_rng(0).normal(size=U.shape))
    assert prepare(sample) is sample
    for background in ("plane", "distance"):
        with pytest.raises(InputError, match=r"'none' keeps every point\), got 0 points"):
            prepare(sample, background)
    assert prepare(sample, "none") is sample


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.002, 0.005, 0.01]), st.sampled_from([10, 30, 60]))
def test_rough_surfaces_without_background_are_kept_whole(seed, height, width):
    waves = gaussian_filter(np.random.default_rng(seed).normal(size=U.shape), width, mode="wrap")
    sample = scene(0.6 + waves / waves.std() * height)
    prepared = prepare(sample)
    assert prepared is sample or prepared.valid.mean() > 0.2
    assert prepare(prepared) is prepared


def test_an_object_that_fills_the_border_is_kept_whole():
    sample = scene(0.6 - 0.02 * ((abs(V) < 90) & (U > -60)))
    assert prepare(sample) is sample
    with pytest.raises(InputError, match="reaches far along the image border"):
        prepare(sample, "plane")


def test_an_object_in_the_void_counts_as_prepared():
    sample = on_table()
    sample = replace(sample, xyz=np.where(DISC[..., None], sample.xyz, 0))
    assert is_prepared(sample)
    assert prepare(sample) is sample


def test_points_without_neighbours_are_kept():
    checkers = (U + V) % 2 == 0
    sample = on_table()
    sample = replace(sample, xyz=np.where(checkers[..., None], sample.xyz, 0))
    assert prepare(sample) is sample
    with pytest.raises(InputError, match="no two points in neighbouring pixels"):
        prepare(sample, "distance")


def test_a_narrow_border_may_be_empty():
    sample = on_table()
    inside = (abs(U) < 99) & (abs(V) < 99)
    sample = replace(sample, xyz=np.where(inside[..., None], sample.xyz, 0))
    np.testing.assert_array_equal(prepare(sample).valid, DISC)
    with pytest.raises(InputError, match="no point along the image border"):
        prepare(sample, "plane", recipe=PlaneRecipe(border=1))


def test_unknown_background_is_named():
    with pytest.raises(InputError, match="background: expected one of auto, plane, distance, none"):
        prepare(on_table(), "magic")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 99), st.sampled_from(["auto", "none"]))
def test_any_small_cloud_is_idempotent(height, width, seed, background):
    xyz = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    prepared = prepare(Sample(np.zeros((height, width, 3), np.uint8), xyz), background)
    assert prepare(prepared, background) is prepared


def pick(category: Category, names: set[str]) -> list[Sample]:
    samples = [s.load() for s in (*category.train, *category.test) if s.name in names]
    assert len(samples) == len(names)
    return samples


@pytest.mark.parametrize("category", synthetic.categories())
def test_procedural_sets_table(category):
    bare = synthetic.make_sample(category, 0)
    assert is_prepared(bare)
    prepared = prepare(synthetic.make_sample(category, 0, background=True))
    assert (prepared.valid & bare.valid).sum() > 0.99 * (prepared.valid | bare.valid).sum()


def test_cable_gland(cable_gland):
    names = {"train/good/019", "test/bent/003", "test/cut/002", "test/thread/001"}
    for sample in pick(mvtec3d.load_category(cable_gland, "cable_gland"), names):
        assert not is_prepared(sample)
        prepared = prepare(sample)
        np.testing.assert_array_equal(prepared.xyz, prepare(sample, "plane").xyz)
        assert is_prepared(prepared)
        assert 0.14 < prepared.valid.mean() < 0.18
        defect = sample.ground_truth & sample.valid
        assert (prepared.valid & defect).sum() >= 0.94 * defect.sum()
        tiny = prepare(replace(sample, xyz=sample.xyz / 16))  # out of the plane recipe's reach
        assert (tiny.valid & prepared.valid).sum() > 0.85 * (tiny.valid | prepared.valid).sum()


def test_candy_cane(candy_cane):
    names = {"train/004", "test_public/27", "test_public/37"}
    for sample in pick(eyecandies.load_category(candy_cane, "CandyCane"), names):
        assert not is_prepared(sample)
        prepared = prepare(sample)
        assert is_prepared(prepared)
        assert 0.035 < prepared.valid.mean() < 0.075
        assert (prepared.valid & sample.ground_truth).sum() >= 0.95 * sample.ground_truth.sum()
        columns = np.flatnonzero(prepared.valid.any(axis=0))
        assert 30 < columns[0] < columns[-1] < 480  # no wall left
    with pytest.raises(InputError, match="for 'plane'"):
        prepare(sample, "plane")
