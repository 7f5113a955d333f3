"""The choice of shots, and the protocol with a detector whose figures are known."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from toy_detector import ToyDetector, toy_category, toy_sample, with_test

from cfr_fast.data.sample import Sample
from cfr_fast.errors import InputError
from cfr_fast.evaluation import (
    CategoryResult,
    choose_shots,
    evaluate,
    evaluate_category,
    image_auroc,
    indices_of,
    summarise,
)
from cfr_fast.evaluation.no_model import random_score
from cfr_fast.evaluation.results import LIMITS, METRICS, SAMPLED, WITH_INTERVAL, aupro_key


def run(category=None, shots=2, seed=42, **options) -> CategoryResult:
    return evaluate_category(category or toy_category(), shots, seed, ToyDetector, 16, **options)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        # The numbers of training files of cable_gland and, in a small copy, CandyCane; known choices.
        (223, ([19], [19, 172], [19, 97, 145, 171])),
        (100, ([8], [8, 77], [8, 43, 64, 75])),
    ],
)
def test_the_papers_shots_are_chosen(n, expected):
    assert tuple(choose_shots(n, k) for k in (1, 2, 4)) == expected


def test_other_rules_and_seeds():
    assert choose_shots(10, 3, rule="first-k") == [0, 1, 2]
    assert choose_shots(10, 2, rule=[7, 3]) == [3, 7]
    assert choose_shots(5, 5, seed=1) == [0, 1, 2, 3, 4]
    assert choose_shots(223, 4, seed=0) != choose_shots(223, 4, seed=1)
    assert all(isinstance(index, int) for index in choose_shots(9, 3))


@pytest.mark.parametrize(
    ("n", "shots", "rule", "names"),
    [
        (5, 0, "rng42", "shots"),
        (5, -1, "first-k", "shots"),
        (5, 6, "rng42", "at most 5"),
        (0, 1, "rng42", "at most 0"),
        (5, 1, "best", "rng42 or first-k"),
        (5, 2, [1], "2 different"),
        (5, 2, [1, 1], "2 different"),
        (5, 2, [1, 5], "from 0 to 4"),
        (5, 1, [-1], "from 0 to 4"),
    ],
)
def test_impossible_choices_are_refused(n, shots, rule, names):
    with pytest.raises(InputError, match=names):
        choose_shots(n, shots, rule=rule)


def test_samples_are_found_by_name():
    train = toy_category().train
    assert indices_of(train, ["003", "train/good/001"]) == [3, 1]
    with pytest.raises(InputError, match="'03'"):
        indices_of(train, ["03"])


def test_a_detector_that_is_right_gets_full_marks():
    result = run(dataset="toys")
    own, *no_model = result.metrics.values()
    assert list(result.metrics) == ["CFR", "mask only", "random"]
    assert all(set(row) == set(METRICS) for row in (own, *no_model))
    assert own["i_auroc"] == own["p_auroc"] == own["detection_rate"] == 1.0
    assert own["aupro_30_exact"] == own["aupro_1_99"] == 1.0
    assert own["false_alarm_rate"] == 0.0
    assert (result.dataset, result.category, result.rule) == ("toys", "toy", "rng42")
    assert (result.normal, result.anomalous, result.size) == (3, 3, 16)
    chosen = np.random.default_rng(42).choice(5, 2, replace=False)
    assert result.training_samples == tuple(f"train/good/{index:03d}" for index in sorted(chosen))
    assert [row.name for row in result.images] == [source.name for source in toy_category().test]
    assert [row.label for row in result.images] == [False] * 3 + [True] * 3
    assert all(row.replaced_fraction == 0.25 for row in result.images)
    assert result.fit_seconds >= 0 < result.predict_seconds


def test_the_mask_only_row_is_what_the_object_alone_gives():
    category = toy_category()
    row = run(category).metrics["mask only"]
    assert row["i_auroc"] == 0.5
    assert math.isnan(row["detection_rate"])
    assert math.isnan(row["aupro_30_99"])
    frame = ToyDetector().predict(category.test[0].load()).frame
    valid = frame.grid_mask(category.test[0].load().valid, 16)
    defect = frame.grid_mask(category.test[-1].load().ground_truth, 16)
    # Three images with the defect, three without: all its pixels tie with the object's other ones.
    rate = (6 * valid.sum() - 3 * defect.sum()) / (6 * valid.size - 3 * defect.sum())
    assert row["p_auroc"] == pytest.approx(1 - rate / 2)
    expected = 0.3 / rate / 2 if rate > 0.3 else (rate / 2 + 0.3 - rate) / 0.3
    assert row["aupro_30_exact"] == pytest.approx(expected)


def test_the_random_row_is_luck_on_the_object():
    category = toy_category(normal=6, defective=6)
    result = run(category)
    row, mask_only = result.metrics["random"], result.metrics["mask only"]
    scores = [random_score("toy", source.name, 42) for source in category.test]
    assert row["i_auroc"] == image_auroc(scores, [source.defect != "good" for source in category.test])
    assert row["i_auroc"] != run(category, seed=0).metrics["random"]["i_auroc"]
    assert row["i_auroc"] == run(category, shots=1).metrics["random"]["i_auroc"]
    for limit in LIMITS:
        key = aupro_key(limit, None)
        assert row[key] == pytest.approx(mask_only[key], abs=0.1)
        assert not math.isnan(row[aupro_key(limit, SAMPLED)])
    assert math.isnan(row["detection_rate"])
    assert math.isnan(row["false_alarm_rate"])


def test_every_row_has_its_intervals():
    result = run(toy_category(normal=6, defective=6))
    assert list(result.intervals) == list(result.metrics)
    assert all(set(row) == set(WITH_INTERVAL) for row in result.intervals.values())
    for name, row in result.intervals.items():
        for metric, (low, high) in row.items():
            assert 0 <= low <= high <= 1
            assert low - 1e-6 <= result.metrics[name][metric] <= high + 1e-6
    low, high = result.intervals["random"]["i_auroc"]
    assert high - low > 0.2
    assert result.intervals["mask only"]["i_auroc"] == (0.5, 0.5)
    assert result.gains["i_auroc"] == (0.5, 0.5)
    assert all(0 < low <= high for low, high in result.gains.values())


@pytest.mark.parametrize(("normal", "defective"), [(1, 3), (3, 1)])
def test_a_single_image_of_a_kind_tells_nothing_about_others(normal, defective):
    result = run(toy_category(normal=normal, defective=defective))
    assert result.gains == {}
    assert set(result.intervals) == set(result.metrics)
    assert not any(result.intervals.values())


def test_the_seed_reaches_the_choice_and_the_model():
    built = []

    def build(seed):
        built.append(ToyDetector(seed))
        return built[-1]

    results = evaluate("toys", [toy_category()], build, shots=(1, 2), seeds=(42, 7), size=16)
    assert [(model.seed, len(model.names)) for model in built] == [(42, 1), (7, 1), (42, 2), (7, 2)]
    assert [(result.shots, result.seed) for result in results] == [(1, 42), (1, 7), (2, 42), (2, 7)]
    assert tuple(built[0].names) == results[0].training_samples
    assert results[0].images[0].threshold == 72.0


def test_the_same_run_gives_the_same_record():
    def record(result):
        return replace(result, fit_seconds=0, predict_seconds=0).to_json()

    assert record(run()) == record(run())
    assert record(run(rule=[4, 0]))["training_samples"] == ["train/good/000", "train/good/004"]
    assert record(run(rule=[4, 0]))["rule"] == "list"


def test_a_record_survives_json():
    result = run(toy_category(normal=0))
    assert math.isnan(result.metrics["CFR"]["i_auroc"])
    text = json.dumps(result.to_json(), allow_nan=False)
    again = CategoryResult.from_json(json.loads(text))
    assert again.to_json() == result.to_json()
    assert again.images == result.images
    assert math.isnan(again.metrics["CFR"]["i_auroc"])


def test_a_record_from_before_there_were_intervals_is_read():
    result = run()
    plain = result.to_json()
    for part in ("intervals", "gains"):
        del plain[part]
    del plain["metrics"]["random"]
    again = CategoryResult.from_json(plain)
    assert list(again.metrics) == ["CFR", "mask only"]
    assert again.intervals == again.gains == {}
    assert again.images == result.images


@pytest.mark.parametrize(
    "change", [{"images": None}, {"metrics": [1]}, {"surprise": 1}, {"gains": {"i_auroc": [1]}}]
)
def test_a_broken_record_is_refused(change):
    with pytest.raises(InputError, match="CategoryResult"):
        CategoryResult.from_json(run().to_json() | change)


def test_a_defect_without_mask_leaves_image_metrics_only():
    normal, red = toy_sample("a"), toy_sample("b", "red")
    unknown = Sample(red.rgb, red.xyz, None, "b", "red")
    row = run(with_test(toy_category(), normal, unknown)).metrics["CFR"]
    assert row["i_auroc"] == 1.0
    assert math.isnan(row["p_auroc"])
    assert math.isnan(row["aupro_30_99"])
    # A normal sample needs no mask, and a mask alone tells what a sample is.
    normal_without = Sample(normal.rgb, normal.xyz, None, "a", "good")
    mask_alone = Sample(red.rgb, red.xyz, red.ground_truth, "b")
    result = run(with_test(toy_category(), normal_without, mask_alone))
    assert result.metrics["CFR"]["aupro_30_exact"] == 1.0
    assert [row.defect for row in result.images] == ["good", "defect"]


def test_what_cannot_be_evaluated_is_refused():
    nothing_known = replace(toy_sample("mystery"), defect=None, ground_truth=None)
    with pytest.raises(InputError, match="'mystery'"):
        run(with_test(toy_category(), nothing_known))
    with pytest.raises(InputError, match="at least one test sample"):
        run(replace(toy_category(), test=()))
    with pytest.raises(InputError, match="size: expected 16, the model's grid, got 224"):
        evaluate_category(toy_category(), 1, 42, ToyDetector)
    with pytest.raises(InputError, match="at least one category"):
        evaluate("toys", [], ToyDetector)


def test_an_impossible_choice_fails_before_any_model_is_built():
    def build(seed):
        raise AssertionError("no model should be built")

    with pytest.raises(InputError, match="at most 5"):
        evaluate("toys", [toy_category(), toy_category("b")], build, shots=(1, 9), size=16)


def test_results_come_one_by_one():
    seen = []
    results = evaluate(
        "toys", [toy_category("a"), toy_category("b")], ToyDetector, size=16, on_result=seen.append
    )
    assert seen == results
    assert [result.category for result in seen] == ["a", "b"]


def test_means_over_categories_then_deviation_over_seeds():
    base = run()

    def made(category, seed, value):
        row = dict.fromkeys(METRICS, value)
        return replace(base, category=category, seed=seed, metrics={"CFR": row})

    results = [made("a", 0, 0.5), made("b", 0, 0.7), made("a", 1, 0.9), made("b", 1, math.nan)]
    (summary,) = summarise(results)
    assert summary.mean["i_auroc"] == pytest.approx((0.6 + 0.9) / 2)
    assert summary.deviation["i_auroc"] == pytest.approx(0.3 / math.sqrt(2))
    assert (summary.seeds, summary.categories) == ((0, 1), ("a", "b"))
    (single,) = summarise(results[:2])
    assert math.isnan(single.deviation["i_auroc"])
    assert single.to_json()["deviation"]["i_auroc"] is None
