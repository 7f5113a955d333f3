"""Intervals of means, and the mark of what is not clearly above the mask alone, in every table."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_detector import ToyDetector, toy_category

from cfr_fast.evaluation import CategoryResult, evaluate_category, print_results, summarise, write_results_csv
from cfr_fast.evaluation.confidence import LEGEND, MARK, RULE, clearly_above, interval_of_mean
from cfr_fast.evaluation.latex import latex_table
from cfr_fast.evaluation.results import METRICS, rows_of
from cfr_fast.evaluation.table import results_json


@pytest.fixture(scope="module")
def base() -> CategoryResult:
    return evaluate_category(toy_category(), 1, 42, ToyDetector, 16, dataset="toys")


def shown(results) -> str:
    text = io.StringIO()
    print_results(results, text)
    return text.getvalue()


def with_auroc(result: CategoryResult, value: float, gain: tuple[float, float] | None, **changes):
    """The result with another image AUROC; its mask has 50 %."""
    metrics = {name: dict(row) for name, row in result.metrics.items()}
    metrics["CFR"]["i_auroc"] = value
    gains = {name: ends for name, ends in result.gains.items() if name != "i_auroc"}
    return replace(
        result, metrics=metrics, gains=gains | ({} if gain is None else {"i_auroc": gain}), **changes
    )


def test_a_single_figure_keeps_its_interval() -> None:
    assert interval_of_mean([[(0.7, (0.5, 0.8))]]) == pytest.approx((0.5, 0.8))
    assert interval_of_mean([[(0.7, (0.5, 0.8)), (math.nan, None)]]) == pytest.approx((0.5, 0.8))
    assert interval_of_mean([[(0.7, None)]]) is interval_of_mean([[]]) is interval_of_mean([]) is None
    assert interval_of_mean([[(0.7, (0.5, 0.8))], [(0.6, None)]]) is None


def test_categories_average_out_and_seeds_do_not() -> None:
    same = (0.5, (0.3, 0.9))
    four = interval_of_mean([[same] * 4])
    assert four == pytest.approx((0.4, 0.7))
    assert interval_of_mean([[same] * 4] * 3) == pytest.approx(four)
    assert interval_of_mean([[(0.4, (0.2, 0.4))], [(0.6, (0.6, 0.7))]]) == pytest.approx((0.4, 0.55))
    # Against the means of independent normal draws.
    rng = np.random.default_rng(0)
    widths = np.array([0.02, 0.05, 0.1])
    draws = (0.5 + widths * rng.standard_normal((20_000, 3))).mean(axis=1)
    low, high = interval_of_mean([[(0.5, (0.5 - 1.96 * width, 0.5 + 1.96 * width)) for width in widths]])
    assert (low, high) == pytest.approx(tuple(np.quantile(draws, (0.025, 0.975))), abs=0.003)


@pytest.mark.parametrize(
    ("gain", "interval", "deviation", "clear"),
    [
        (0.1, None, math.nan, True),
        (0.1, (0.01, 0.2), 0.05, True),
        (0.0, None, math.nan, False),
        (-0.1, (0.01, 0.2), math.nan, False),
        (0.1, (0.0, 0.2), math.nan, False),
        (0.1, (-0.01, 0.2), 0.0, False),
        (0.1, (0.05, 0.2), 0.1, False),
        (0.1, None, 0.2, False),
        (math.nan, None, 0.2, True),
    ],
)
def test_the_rule(gain, interval, deviation, clear) -> None:
    assert clearly_above(gain, interval, deviation) == clear


def test_what_is_clear_has_no_mark(base) -> None:
    assert summarise([base])[0].not_above_mask == ()
    text = shown([base]) + latex_table([base])
    assert MARK not in text
    assert LEGEND not in text
    assert r"\circ" not in text


@pytest.mark.parametrize(("value", "gain"), [(0.6, (-0.1, 0.3)), (0.4, None), (0.5, None)])
def test_what_is_not_is_marked_in_every_table(base, tmp_path: Path, value, gain) -> None:
    weak = with_auroc(base, value, gain)
    for rows in (summarise([weak]), rows_of([weak])):
        assert [row.not_above_mask for row in rows] == [("i_auroc",), (), ()]
    text = shown([weak])
    assert text.count(f"{100 * value:.1f}{MARK}") == 2  # by category, and the mean
    assert f"{LEGEND}:\n{RULE}" in text
    assert text.count(MARK) == 3
    latex = latex_table([weak])
    assert latex.count(rf"{100 * value:.1f}$^{{\circ}}$") == 1
    last = latex.splitlines()[-2]
    assert last.startswith(r"\multicolumn{12}{l}{\footnotesize $^{\circ}$ not clearly above")
    assert r"95 \%" in last
    write_results_csv(tmp_path / "results.csv", [weak])
    rows = list(csv.DictReader((tmp_path / "results.csv").open(newline="")))
    assert [row["not_above_mask"] for row in rows] == ["i_auroc", "", ""]
    content = results_json([weak])
    assert [row["not_above_mask"] for row in content["summary"]] == [["i_auroc"], [], []]


def test_a_deviation_that_reaches_the_mask_counts(base) -> None:
    clear = (0.02, 0.4)
    seeds = [with_auroc(base, value, clear, seed=seed) for seed, value in enumerate((0.55, 0.75, 0.65))]
    assert summarise(seeds)[0].not_above_mask == ()  # 65 ± 10
    seeds = [with_auroc(base, value, clear, seed=seed) for seed, value in enumerate((0.52, 0.9, 0.52))]
    assert summarise(seeds)[0].not_above_mask == ("i_auroc",)  # 65 ± 22
    assert all(row.not_above_mask == () for row in rows_of(seeds))


def test_categories_together_may_be_clear_where_each_is_not(base) -> None:
    few = [with_auroc(base, 0.6, (-0.05, 0.25), category=f"{index}") for index in range(9)]
    assert all(row.not_above_mask == ("i_auroc",) for row in rows_of(few) if row.method == "CFR")
    assert summarise(few)[0].not_above_mask == ()


def test_results_without_intervals_are_judged_by_their_figures(base) -> None:
    old = replace(base, intervals={}, gains={})
    old = replace(old, metrics={name: row for name, row in old.metrics.items() if name != "random"})
    assert "intervals over test images" not in shown([old])
    assert summarise([old])[0].intervals == {}
    worse = {**old.metrics["CFR"], "aupro_1_exact": old.metrics["mask only"]["aupro_1_exact"]}
    old = replace(old, metrics={**old.metrics, "CFR": worse})
    assert summarise([old])[0].not_above_mask == ("aupro_1_exact",)
    mixed = summarise([old, replace(base, category="other")])
    assert [row.label(2) for row in mixed] == ["CFR", "mask only", "random (1 of 2 categories)"]
    assert mixed[0].intervals == {}


def test_tables_fit_a_screen(base) -> None:
    """Three seeds, deviations, marks: eighty characters."""
    rng = np.random.default_rng(0)
    results = []
    for seed in (42, 0, 1):
        for method in ("CFR", "PatchCore RGB", "PatchCore 3D"):
            row = {name: 0.2 + 0.1 * rng.random() for name in METRICS}
            metrics = {method: row, **{k: v for k, v in base.metrics.items() if k != "CFR"}}
            intervals = {method: base.intervals["CFR"]}
            results.append(replace(base, seed=seed, metrics=metrics, intervals=intervals, gains={}))
    text = shown(results)
    lines = text.splitlines()
    assert text.count(MARK) > 30
    assert max(len(line.rstrip()) for line in lines) <= 80
