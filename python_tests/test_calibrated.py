"""The calibrated score and what it is made of: cells, conditioning, evidence, levels, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfr_fast import CFR, InputError, Sample
from cfr_fast.calibrate import LEARN, image_threshold, normal_views, score_threshold
from cfr_fast.cells import cell_of_pixels, pooled, spread
from cfr_fast.conditioning import fit_conditioning
from cfr_fast.data.augment import mirrored
from cfr_fast.data.points import measured
from cfr_fast.data.synthetic import make_sample
from cfr_fast.evidence import APART, CellMemory, discrepancy, own_distances
from cfr_fast.lesson import PixelFeatures
from cfr_fast.ops import Interpolated
from cfr_fast.presets import PRESETS

FAST: dict[str, Any] = {
    **PRESETS["classic"],
    "size": 48,
    "score": "calibrated",
    "turns": True,
    "crop": True,
    "cell": 6,
    "mapper_epochs": 4,
    "attention_epochs": 2,
    "shot_views": 3,
    "calibration_views": 3,
    "background": "none",
    "false_alarm": 0.05,
}


def part(index: int, split: str = "train", defect: str = "good") -> Sample:
    return make_sample("cookie", index, split=split, defect=defect, seed=0, size=96)


@pytest.fixture(scope="module")
def good() -> list[Sample]:
    return [part(0), part(1)]


@pytest.fixture(scope="module")
def model(good: list[Sample]) -> CFR:
    return CFR(seed=0, progress=False, **FAST).fit(good)


def view_of(valid: torch.Tensor, dims: tuple[int, int] = (5, 3), seed: int = 0) -> PixelFeatures:
    count = int(valid.sum())
    generator = torch.Generator().manual_seed(seed)
    rgb, xyz = (Interpolated.of(torch.randn(count, d, generator=generator)) for d in dims)
    return PixelFeatures(rgb, xyz, valid)


@given(size=st.integers(1, 20), side=st.integers(1, 20), seed=st.integers(0, 99), share=st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_cells_are_means_of_their_pixels(size: int, side: int, seed: int, share: float) -> None:
    side = min(side, size)
    valid = torch.rand(size, size, generator=torch.Generator().manual_seed(seed)) < share
    view = view_of(valid, seed=seed)
    cells = pooled(view, side)
    dense = torch.full((size, size, 5), torch.nan)
    dense[valid] = view.rgb.dense()
    expected = []
    rows = torch.arange(size) * side // size

    def covered(i: int, j: int, percent: int) -> bool:
        here = valid[rows == i][:, rows == j]
        return 100 * int(here.sum()) >= max(1, percent * here.numel())

    grid = [(i, j) for i in range(side) for j in range(side)]
    percent = 30 if any(covered(i, j, 30) for i, j in grid) else 0
    kept = torch.zeros(side, side, dtype=torch.bool)
    for i, j in grid:
        if covered(i, j, percent):
            kept[i, j] = True
            here = valid[rows == i][:, rows == j]
            expected.append(dense[rows == i][:, rows == j][here].mean(dim=0))
    assert torch.equal(cells.valid, kept)
    assert cells.rgb.pixels == cells.xyz.pixels == len(expected)
    if expected:
        torch.testing.assert_close(cells.rgb.dense(), torch.stack(expected), atol=1e-6, rtol=1e-5)
    assert bool((cell_of_pixels(valid, side) < side * side).all())


def test_cells_of_a_view_with_its_background_leave_it_out() -> None:
    valid = torch.zeros(8, 8, dtype=torch.bool)
    valid[2:6, 2:6] = True
    whole = view_of(torch.ones(8, 8, dtype=torch.bool))
    flat = valid.reshape(-1).nonzero()[:, 0]
    only = PixelFeatures(whole.rgb.select(flat), whole.xyz.select(flat), valid)
    with_background = PixelFeatures(whole.rgb, whole.xyz, valid)
    assert torch.equal(pooled(with_background, 4).rgb.dense(), pooled(only, 4).rgb.dense())


def test_a_map_of_cells_keeps_constants_inside_and_ends_soon_outside() -> None:
    valid = torch.zeros(10, 10, dtype=torch.bool)
    valid[2:8, 2:8] = True
    found = spread(torch.full((36,), 3.0), valid, 40, 0.5)
    assert found.shape == (40, 40)
    torch.testing.assert_close(found[18:22, 18:22], torch.full((4, 4), 3.0))
    assert float(found[:1].abs().max()) < 0.01
    assert 0 < float(found[7, 20]) < 3  # it reaches over the edge of the cells
    sharp = spread(torch.arange(36.0), valid, 10, 0.0)
    assert torch.equal(sharp[valid], torch.arange(36.0))


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_conditioning_standardises_turns_and_whitens(whitening: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + 4
    found = fit_conditioning(rows, 4, whitening)(rows)
    assert found.shape == (500, 4)
    covariance = torch.cov(found.T, correction=0)
    torch.testing.assert_close(covariance, covariance.diagonal().diag(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(4), atol=1e-4, rtol=0)
    standard = (rows - rows.mean(0)) / rows.std(0, correction=0)
    variance = torch.linalg.eigvalsh(torch.cov(standard.T, correction=0)).flip(0)[:4]
    torch.testing.assert_close(covariance.diagonal(), variance ** (1 - whitening), atol=1e-3, rtol=1e-3)


def test_conditioning_of_constant_and_of_few_rows() -> None:
    rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    rows[:, 2] = 7.0  # a dead channel
    assert torch.isfinite(fit_conditioning(rows, 4, 1.0)(rows)).all()
    assert fit_conditioning(rows, 4, 1.0).basis.shape == (4, 3)
    one = torch.ones(1, 4)
    assert torch.equal(fit_conditioning(one, 4, 0.5)(one), torch.zeros(1, 1))


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_distances_agree_with_all_pairs(seed: int, queries: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rgb, xyz = torch.randn(rows, 7, generator=generator), torch.randn(rows, 4, generator=generator)
    a, b = torch.randn(queries, 7, generator=generator), torch.randn(queries, 4, generator=generator)
    shot = torch.randint(0, 3, (rows,), generator=generator)
    memory = CellMemory.of(rgb, xyz, shot)

    def cosine(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cosine_similarity(left[:, None].double(), right[None].double(), dim=2)

    for excluded in range(3):
        others = shot != excluded if bool((shot != excluded).any()) else torch.ones(rows, dtype=torch.bool)
        first, second = cosine(a, rgb[others]), cosine(b, xyz[others])
        expected = 1 - torch.stack([m.amax(1) for m in (first, second, (first + second) / 2)], dim=1)
        found = memory.without(excluded).distances(a, b)
        torch.testing.assert_close(found.double(), expected.clamp(min=0), atol=2e-6, rtol=1e-5)


def test_discrepancy_ignores_lengths() -> None:
    predicted = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    observed = torch.tensor([[5.0, 0.0], [4.0, 0.0]])
    torch.testing.assert_close(discrepancy(predicted, observed), torch.tensor([0.0, 2.0**0.5]))


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=20), st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_a_lower_rate_of_false_alarms_gives_a_higher_threshold(
    scores: list[float], a: float, b: float
) -> None:
    low, high = sorted((a, b))
    assert image_threshold(scores, high) <= image_threshold(scores, low) * (1 + 1e-12)
    assert image_threshold(scores, None) == score_threshold(scores)


def test_the_threshold_keeps_its_rate_of_false_alarms() -> None:
    rng = np.random.default_rng(0)
    scores = np.exp(rng.normal(0.3, 0.5, (2000, 9)))
    above = [row[8] > image_threshold(list(row[:8]), 0.1) for row in scores]
    assert abs(np.mean(above) - 0.1) < 0.025
    assert image_threshold([2.0], 0.1) == 2.0
    assert image_threshold([0.0, 2.0], 0.1) == 2.0


def test_views_turn_through_the_full_circle(good: list[Sample]) -> None:
    def direction(sample: Sample) -> float:
        """Of the brightest colour against the part's centre."""
        valid = measured(sample.xyz)
        rows, columns = np.nonzero(valid)
        red = sample.rgb[valid][:, 0].astype(float)
        weight = red - red.min()
        return float(
            np.arctan2((weight * (rows - rows.mean())).sum(), (weight * (columns - columns.mean())).sum())
        )

    views = list(normal_views(good[:1], 8, 0, LEARN, turns=True))
    angles = np.array([direction(view) for view in views])
    steps = np.angle(np.exp(1j * np.diff(angles)))
    assert abs(abs(steps.sum()) - 2 * np.pi * 7 / 8) < np.pi / 3  # all the way round, in one sense


def test_a_mirror_image_keeps_rays_and_distances(good: list[Sample]) -> None:
    sample = good[0]
    other = mirrored(sample)
    assert np.array_equal(other.rgb[:, ::-1], sample.rgb)
    assert np.array_equal(other.valid[:, ::-1], sample.valid)
    assert np.array_equal(other.xyz[:, ::-1] * [-1, 1, 1], sample.xyz)
    assert not other.xyz[~other.valid].any()
    again = mirrored(other)
    assert np.array_equal(again.xyz, sample.xyz)
    assert np.array_equal(again.rgb, sample.rgb)
    plain, flipped = (list(normal_views(good[:1], 4, 0, LEARN, turns=True, flips=f)) for f in (False, True))
    same = [np.array_equal(a.rgb, b.rgb) for a, b in zip(plain, flipped, strict=True)]
    assert same == [True, False, True, False]


def test_own_cells_are_those_farther_away() -> None:
    side = 2 * APART + 3
    valid = torch.ones(side, side, dtype=torch.bool)
    valid[0, 1] = False
    place = valid.nonzero()
    rgb, xyz = (torch.randn(len(place), d, generator=torch.Generator().manual_seed(d)) for d in (8, 5))
    twin = int(((place == torch.tensor([0, side - 1])).all(dim=1)).nonzero())
    rgb[twin], xyz[twin] = rgb[0] * 3, xyz[0] * 0.5  # length does not count
    found = own_distances(rgb, xyz, valid)
    assert found[0] < 1e-6
    assert found[twin] < 1e-6
    both = torch.cat([torch.nn.functional.normalize(each.double(), dim=1) for each in (rgb, xyz)], dim=1)
    for row in (1, 7, len(place) - 1):
        far = (place - place[row]).abs().amax(dim=1) > APART
        assert float(found[row]) == pytest.approx(float((1 - both[far] @ both[row] / 2).min()), abs=1e-6)


@pytest.mark.parametrize("cells", [0, 1, 4])
def test_cells_without_others_are_neutral(cells: int) -> None:
    valid = torch.zeros(8, 8, dtype=torch.bool)
    valid.view(-1)[:cells] = True
    valid[7, 7] = cells == 4
    rows = int(valid.sum())
    found = own_distances(torch.randn(rows, 3), torch.randn(rows, 2), valid)
    assert found.shape == (rows,)
    assert torch.isfinite(found).all()
    if cells == 1:
        assert found.tolist() == [1.0]


def test_self_similarity_is_one_more_piece_of_evidence(good: list[Sample], tmp_path: Path) -> None:
    plain = CFR(seed=0, progress=False, **FAST, self_similarity=False).fit(good[:1]).learned.calibrated
    fitted = CFR(seed=0, progress=False, **FAST, self_similarity=True, flips=True).fit(good[:1])
    assert plain is not None
    assert fitted.learned.calibrated is not None
    assert (plain.scale.shape, fitted.learned.calibrated.scale.shape) == ((5,), (6,))
    fitted.save(tmp_path / "model.safetensors")
    result = fitted.predict(part(0, "test", "hole"))
    assert np.isfinite(result.anomaly_map).all()
    assert result.score > 0
    again = CFR.load(tmp_path / "model.safetensors", device="cpu").predict(part(0, "test", "hole"))
    assert np.array_equal(again.anomaly_map, result.anomaly_map)


def test_judges_alike_twice_and_after_saving(model: CFR, good: list[Sample], tmp_path: Path) -> None:
    sample = part(0, "test", "hole")
    result = model.predict(sample)
    assert result.anomaly_map.shape == (96, 96)
    assert np.isfinite(result.anomaly_map).all()
    assert result.label == (result.score > model.threshold_)
    assert result.replaced.sum() == round(result.replaced_fraction * result.valid.sum()) or FAST["crop"]
    again = CFR(seed=0, progress=False, **FAST).fit(good).predict(sample)
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = CFR.load(path, device="cpu")
    for other in (again, loaded.predict(sample)):
        assert other.score == result.score
        assert np.array_equal(other.anomaly_map, result.anomaly_map)
    assert loaded.theta_ == model.theta_
    assert loaded.learned.widths == model.learned.widths


def test_a_stain_is_found_where_it_is(model: CFR) -> None:
    clean = part(0, "test")
    valid = measured(clean.xyz)
    row, column = (int(np.median(axis)) for axis in np.nonzero(valid))
    rgb = clean.rgb.copy()
    rgb[row - 7 : row + 7, column - 7 : column + 7] = (20, 200, 255)
    before, after = model.predict(clean), model.predict(Sample(rgb, clean.xyz, name="stained"))
    assert after.score > before.score
    y, x = np.unravel_index(after.anomaly_map.argmax(), after.anomaly_map.shape)
    assert max(abs(y - row), abs(x - column)) <= 16


def test_one_shot_and_a_part_of_one_point(good: list[Sample]) -> None:
    model = CFR(seed=1, progress=False, **FAST).fit(good[0])
    assert 0 < model.threshold_ < np.inf
    lone = np.zeros_like(good[0].xyz)
    lone[40, 40] = good[0].xyz[measured(good[0].xyz)][0]
    result = model.predict(Sample(good[0].rgb, lone, name="lone"))
    assert np.isfinite(result.score)
    assert np.isfinite(result.anomaly_map).all()


def test_without_replacement_nothing_is_replaced(good: list[Sample]) -> None:
    model = CFR(seed=0, progress=False, **{**FAST, "replacement": "none"}).fit(good)
    assert model.predict(part(1, "test", "hole")).replaced_fraction == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score", "best"),
        ("cell", 0),
        ("cell", 300),
        ("whitening", 1.5),
        ("false_alarm", 0.0),
        ("false_alarm", 0.7),
        ("feature_width", 0),
        ("memory_cells", 0),
        ("turns", 1),
    ],
)
def test_refuses_settings_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        CFR(**{name: value})


def test_refuses_calibration_without_views() -> None:
    with pytest.raises(InputError, match="calibration_views"):
        CFR(score="calibrated", calibration_views=0, theta=0.1, threshold=1.0)
