"""The races' own arithmetic; no timing decides anything here."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from cfr_fast.benchmark import (
    RACES,
    SLOW,
    Machine,
    Outcome,
    Race,
    Stage,
    dense,
    memory,
    metrics,
    paper,
    report,
    run,
)
from cfr_fast.benchmark.race import Seconds
from cfr_fast.cli import main
from cfr_fast.data import Sample
from cfr_fast.mappers import CyclicMappers

MACHINE = Machine("processor", 2, "2.13", "avx2", sgemm=100.0, fma_peak=200.0, copy=20.0)


def counted(values: list[float], log: list[str], who: str) -> Stage:
    left = list(values)

    def contender() -> float:
        log.append(who)
        return left.pop(0)

    return contender  # type: ignore[return-value]


def test_medians_are_summed_over_stages_with_their_repeats() -> None:
    log: list[str] = []
    first = Stage(counted([9, 1, 5, 2], log, "a"), {"peer": counted([9, 8, 6, 30], log, "b")}, 10, rounds=3)  # type: ignore[arg-type]
    second = Stage(counted([7], log, "c"), {"peer": counted([70], log, "d")}, rounds=1, warm=False)  # type: ignore[arg-type]
    outcome = run("name", Race("what", (first, second), unit="bytes", bars={"peer": 4.0}))
    assert log == ["a", "b"] * 4 + ["c", "d"]  # in turns; the first pair warms up
    assert outcome.ours == 10 * 2 + 7
    assert outcome.peers == {"peer": 10 * 8 + 70}
    assert outcome.ratio("peer") == pytest.approx(150 / 27)


def test_rounds_can_be_cut() -> None:
    log: list[str] = []
    stage = Stage(counted([1, 2, 3], log, "a"), {}, rounds=5)  # type: ignore[arg-type]
    assert run("name", Race("what", (stage,), unit="bytes"), rounds=2).ours == 2.5
    assert len(log) == 3


def test_a_contender_may_count_its_own_seconds() -> None:
    outcome = run("name", Race("what", (Stage(lambda: Seconds(70), {"peer": lambda: 70}),)))
    assert outcome.ours == 70
    assert outcome.peers["peer"] < 1


def test_the_whole_dataset_is_the_same_at_each_reading() -> None:
    data = metrics.WholeDataset(299)
    maps, masks = list(data.maps()), list(data.masks())
    sides = [400, 900, 800, 700, 600]
    assert [scores.shape for scores in maps] == [mask.shape for mask in masks] == [(s, s) for s in sides]
    assert any(mask.any() for mask in masks)
    assert not all(mask.any() for mask in masks)
    for scores, again in zip(maps, data.maps(), strict=True):
        np.testing.assert_array_equal(scores, again)
    limits = metrics.LIMITS
    expected = metrics.sampled_aupro(maps, masks)
    np.testing.assert_allclose(metrics.exact_aupro(data.maps, data.masks, limits, 99), expected, atol=1e-9)


def test_answers_that_differ_stop_the_race() -> None:
    def same() -> None:
        raise AssertionError("the answers differ")

    with pytest.raises(AssertionError, match="the answers differ"):
        run("name", Race("what", (Stage(lambda: pytest.fail("timed"), {}),), same=same))


def test_report_says_which_promises_hold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    fast = Outcome("a", "some work", "s", 0.5, {"peer": 1.0, "other": 3.0}, {"peer": 1.5}, 25e9, None)
    large = Outcome("b", "memory", "bytes", 2e6, {"peer": 3e6}, {"peer": 4.0}, None, None)
    traffic = Outcome("c", "copying", "s", 2.0, {"peer": 2.0}, {}, None, 10e9)
    found = json.loads(json.dumps(report.to_json(MACHINE, [fast, large, traffic])))
    assert [entry["bars_met"] for entry in found["races"]] == [{"peer": True}, {"peer": False}, {}]
    assert found["races"][0]["ratios"] == {"peer": 2.0, "other": 6.0}
    assert found["races"][0]["share_of_sgemm"] == 0.5
    assert found["races"][0]["share_of_fma_peak"] == 0.25
    assert found["races"][2]["share_of_copy"] == 0.25
    report.show(MACHINE, [fast, large, traffic])
    printed = capsys.readouterr().out
    for text in (
        "500.0 ms",
        "2.00 ×",
        "1.5 ×",
        "50 GFLOP/s",
        "50% of sgemm",
        "2 MB",
        "5.0 GB/s",
        "25% of copy",
    ):
        assert text in printed


def test_slow_races_exist() -> None:
    assert set(SLOW) < set(RACES)


def test_bench_names_the_races(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "no-such-race"]) == 2
    assert "races: expected names among topk" in capsys.readouterr().err
    assert main(["bench", "knn", "--rounds", "0"]) == 2
    assert "--rounds: expected a whole number ≥ 1, got 0" in capsys.readouterr().err


def test_bench_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["bench", "knn", "--rounds", "1", "--threads", "1", "--json"]) == 0
    finally:
        torch.set_num_threads(threads)
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["threads"] == 1
    assert found["machine"]["sgemm"] > 0
    assert found["machine"]["fma_peak"] is None or found["machine"]["fma_peak"] > 0
    assert found["races"][0]["race"] == "knn"
    assert found["races"][0]["ours"] > 0


@pytest.fixture(scope="module")
def timing() -> paper.Timing:
    """The paper's configuration with tiny networks."""
    network = {"depth": 1, "embed_dim": 24, "num_heads": 2, "img_size": 32}
    return paper.measure(
        paper.made_up_sample(64),
        epochs=4,
        rounds=1,
        size=32,
        rgb="timm:vit_tiny_patch16_224",
        rgb_options={"weights": "random", "input_size": 32, "model_kwargs": network},
        xyz_options={"weights": "random", "groups": 20, "neighbours": 8},
        calibration_views=1,
    )


def test_every_stage_of_the_paper_is_timed(timing: paper.Timing) -> None:
    assert 0.45 < timing.valid < 0.7  # pooled neighbourhoods reach beyond the disc, on a small grid by far
    assert timing.replaced == pytest.approx(0.25, abs=0.01)
    parts = {cost.stage: cost for cost in timing.extraction}
    assert list(parts) == ["preparation", "RGB", "3D", "bare RGB network", "bare 3D network"]
    seconds = [cost.seconds for cost in timing.extraction]
    assert timing.ratio == pytest.approx(sum(seconds[:3]) / sum(seconds[3:]))
    stages = [cost.stage for cost in timing.fit]
    assert stages == [
        *("Extracting features", "Extracting views", "Calibrating", "Training mappers"),
        *("Selecting banks", "Finding candidates", "Training retriever", "everything else", "fit"),
    ]
    assert all(cost.seconds >= 0 for cost in [*timing.extraction, *timing.fit, timing.predict])
    assert timing.fit[-1].seconds == pytest.approx(sum(cost.seconds for cost in timing.fit[:-1]))
    if memory.available():
        assert timing.peak is not None
        assert timing.peak >= (timing.predict.peak or 0) > 1 << 20


def test_epochs_are_carried_over_to_a_hundred() -> None:
    stages = [paper.Cost("Selecting banks", 3.0, 7), paper.Cost("Training mappers", 2.0, 5)]
    found = {cost.stage: (cost.seconds, cost.peak) for cost in paper._fit_costs(stages, 6.0, epochs=4)}
    assert found == {
        "Selecting banks": (3.0, 7),
        "Training mappers": (50.0, 5),
        "everything else": (1.0, None),
        "fit": (54.0, 7),
    }


def test_the_paper_on_the_command_line(
    timing: paper.Timing, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = replace(timing, ratio=1.5, peak=None)
    asked: list[tuple[str, int, int]] = []

    def measured(sample: Sample, epochs: int, rounds: int) -> paper.Timing:
        asked.append((sample.name, epochs, rounds))
        return slow

    monkeypatch.setattr(paper, "measure", measured)
    monkeypatch.setattr("cfr_fast.benchmark.measure_machine", lambda: MACHINE)
    assert main(["bench", "paper", "--epochs", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["sgemm"] == 100.0
    assert found["paper"]["bars_met"] == {"fit": True, "predict": True, "extraction": False}
    assert found["paper"]["fit"][-1]["seconds"] == timing.fit[-1].seconds
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["bench", "paper"]) == 0
    printed = capsys.readouterr().out
    assert "extraction takes 1.50 × the bare networks" in printed
    assert "extraction: not met" in printed
    assert "Training retriever" in printed
    assert asked == [("made-up disc", 2, 3), ("made-up disc", 100, 3)]
    for wrong in (
        "paper knn",
        "knn --epochs 2",
        "--sample a.png",
        "paper --epochs 0",
        "paper --sample no.png",
    ):
        assert main(["bench", *wrong.split()]) == 2
    assert len(asked) == 2


def test_peak_memory_counts_what_was_freed_again() -> None:
    if not memory.available():
        pytest.skip("this system does not let a process restart its count of peak memory")
    size = 64 << 20
    assert memory.peak(lambda: torch.ones(size // 4).sum()) >= 0.9 * size
    assert memory.peak(lambda: None) < 0.2 * size


def test_dense_losses_are_those_of_the_token_path() -> None:
    from cfr_fast.ops import Interpolated

    pair = CyclicMappers(6, 8)
    rgb, xyz = torch.randn(30, 6), torch.randn(30, 8)
    valid = torch.arange(30) % 3 > 0
    wanted = dense.mapper_losses(pair, rgb, xyz, valid)
    wanted.sum().backward()
    gradients = [p.grad.clone() for p in pair.parameters()]
    pair.zero_grad()
    got = pair.accumulate(Interpolated.of(rgb[valid]), Interpolated.of(xyz[valid]))
    torch.testing.assert_close(got, wanted.detach())
    for parameter, gradient in zip(pair.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
