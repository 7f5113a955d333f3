"""PatchCore on extracted features, and models that share one lesson."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cfr_fast import CFR, InputError, NotFittedError
from cfr_fast.data.synthetic import make_sample
from cfr_fast.patchcore import PatchCore, nearest_distance
from cfr_fast.presets import PRESETS

FAST = {
    **PRESETS["classic"],
    "size": 32,
    "mapper_epochs": 3,
    "attention_epochs": 2,
    "shot_views": 1,
    "calibration_views": 2,
    "background": "none",
    "coreset": 1.0,
}


def part(index: int, split: str = "train", defect: str = "good"):
    return make_sample("cookie", index, split=split, defect=defect, seed=0, size=64)


@pytest.fixture(scope="module")
def lead() -> CFR:
    return CFR(seed=3, **FAST)


@pytest.fixture(scope="module")
def lesson(lead: CFR):
    return lead.lesson([part(0)])


def test_distances_equal_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    query, rows = (torch.randn(n, 7, generator=generator) for n in (300, 90))
    query[5] = rows[3]
    expected = (query[:, None].double() - rows.double()).square().sum(dim=2).sqrt().amin(dim=1)
    found = nearest_distance(query, rows)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    assert found[5] == 0
    assert nearest_distance(query[:0], rows).shape == (0,)


@pytest.mark.parametrize("kinds", [("rgb",), ("xyz",), ("rgb", "xyz")])
def test_what_is_remembered_scores_nothing(lead: CFR, lesson, kinds) -> None:
    model = PatchCore(kinds, lead.settings).fit_lesson(lesson)
    seen = model.predict_features("seen", lead.features(part(0)))
    assert seen.score == 0
    assert not seen.label
    assert not seen.replaced.any()
    other = model.predict_features("other", lead.features(part(0, "test", "hole")))
    assert other.score > 0
    assert other.raw_map.shape == (32, 32)
    assert other.localization_map[other.localization_map > 0].mean() == pytest.approx(1, rel=1e-5)
    assert 0 < model.pixel_threshold <= model.threshold < float("inf")


def test_both_kinds_are_added_in_units_of_normal_views(lead: CFR, lesson) -> None:
    features = lead.features(part(0, "test", "hole"))
    color, shape, both = (
        PatchCore(kinds, lead.settings).fit_lesson(lesson).predict_features("x", features).raw_map
        for kinds in (("rgb",), ("xyz",), ("rgb", "xyz"))
    )
    np.testing.assert_allclose(both, color + shape, rtol=1e-5, atol=1e-6)
    alone = PatchCore(("rgb",), lead.settings).fit_lesson(lesson)
    means = [torch.cat([memory.distances(view) for view in lesson.calibration]) for memory in alone._memories]
    assert float(means[0].mean()) == pytest.approx(1, rel=1e-5)


def test_a_shared_lesson_gives_the_model_of_its_own(lead: CFR, lesson) -> None:
    """Whatever was trained for another model before, the answer is that of a fit from the samples."""
    sample = part(1, "test", "dent")
    for changes in ({}, {"replacement": "nearest"}, {"theta": 0.05}, {"mapper": "mlp", "cycle": False}):
        wanted = CFR(seed=3, **FAST, **changes).fit([part(0)]).predict(sample)
        found = CFR(seed=3, **FAST, **changes).fit_lesson(lesson)
        result = found.predict_features(sample.name, lead.features(sample))
        assert np.array_equal(result.raw_map, wanted.raw_map)
        assert (result.score, result.threshold) == (wanted.score, wanted.threshold)


def test_equal_parts_are_trained_once(lesson) -> None:
    one, other = (CFR(seed=3, **FAST, theta=theta).fit_lesson(lesson).learned for theta in (0.1, 0.2))
    assert one.mappers is other.mappers
    assert one.retriever is other.retriever
    small = CFR(seed=3, **FAST | {"coreset": 0.1}).fit_lesson(lesson).learned
    assert small.mappers is one.mappers
    assert small.retriever is not one.retriever
    assert len(small.rgb_bank) < len(one.rgb_bank)


def test_misuse_is_refused(lead: CFR) -> None:
    with pytest.raises(InputError, match="kinds"):
        PatchCore((), lead.settings)
    with pytest.raises(InputError, match="depth"):
        PatchCore(("depth",), lead.settings)
    with pytest.raises(NotFittedError):
        PatchCore(("rgb",), lead.settings).predict_features("x", lead.features(part(0)))
