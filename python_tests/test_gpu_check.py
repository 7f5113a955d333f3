"""The script for machines with a card, tried out on a processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cfr_fast import ops

BENCH = Path(__file__).resolve().parents[1] / "bench"
sys.path.append(str(BENCH))
import gpu_check  # noqa: E402
from gpu import cases, checks, races, timing  # noqa: E402

CPU = torch.device("cpu")


def test_dry_run_from_end_to_end(tmp_path: Path) -> None:
    command = ["bash", str(BENCH / "gpu_check.sh"), "--dry-run", str(tmp_path)]
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(BENCH.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "cpu.json").read_text())
    assert {entry["op"] for entry in report["checks"]} == set(ops.__all__) - {"Interpolated"}
    assert not any(entry["failure"] for entry in report["checks"])
    assert {entry["race"] for entry in report["races"]} == set(gpu_check.RACES) - {"inference"}
    assert not any(entry["disagreement"] for entry in report["races"])
    assert (report["errors"], report["left_out"]) == ({}, [])
    assert report["roofs"]["copy_gb_per_s"] > 0


def test_tiles_of_hopper_are_checked_and_raced_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--hopper", "--dry-run", "--results", str(tmp_path)])
    assert gpu_check.main() == 0
    report = json.loads((tmp_path / "cpu_hopper.json").read_text())
    assert {entry["op"] for entry in report["checks"]} == set(gpu_check.hopper.OPS)
    assert [("without" in entry["ratios"], entry["disagreement"]) for entry in report["races"]] == [
        (True, "")
    ] * 2
    assert "CFR_FAST_HOPPER" not in os.environ


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_says_when_there_is_no_card() -> None:
    done = subprocess.run([sys.executable, str(BENCH / "gpu_check.py")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr


def case_of(op: str) -> cases.Case:
    return next(case for case in cases.cases(seed=3, few=True) if case.op == op)


def spoiled(result: Any) -> Any:
    """Numbers a little off; lists of rows without their last one, or with the first one twice."""
    if isinstance(result, tuple):
        return (spoiled(result[0]), *result[1:])
    if result.is_floating_point():
        return result * 1.001 + 1e-3
    return (
        result[:-1] if result.dim() == 1 else torch.cat([result[:, :1], result[:, :1], result[:, 2:]], dim=1)
    )


@pytest.mark.parametrize("op", sorted(set(ops.__all__) - {"Interpolated"}))
def test_wrong_results_are_noticed(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, right = case_of(op), getattr(ops, op)

    def wrong(*arguments: Any) -> Any:
        first = arguments[0].tokens if isinstance(arguments[0], ops.Interpolated) else arguments[0]
        result = right(*arguments)
        return result if first.dtype == torch.float64 else spoiled(result)

    assert checks.examine(case, CPU) == ""
    monkeypatch.setattr(ops, op, wrong)
    assert checks.examine(case, CPU) != ""


def test_results_that_change_from_run_to_run_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right, calls = ops.bank_attention, []

    def restless(*arguments: Any) -> Any:
        calls.append(1)
        return right(*arguments) + 1e-7 * len(calls)

    monkeypatch.setattr(ops, "bank_attention", restless)
    assert checks.examine(case_of("bank_attention"), CPU) == "the second run gave other bits"


def test_all_cases_are_right_on_the_processor() -> None:
    found = list(checks.examine_all(CPU, seed=5))
    assert len(found) > 40
    assert [entry for entry in found if entry["failure"]] == []


def test_a_race_with_another_answer_keeps_no_promise() -> None:
    def disagree() -> None:
        raise AssertionError("other rows")

    rows = torch.zeros(10)
    race = races.Race("x", 1, lambda _: rows + 1, {"peer": lambda _: rows - 1}, {"peer": 0.0}, same=disagree)
    timer = timing.Timer(CPU, 2, 0.1)
    timer_on_a_card = type(
        "OnACard", (), {"device": torch.device("cuda"), "race": timer.race, "seconds": 1}
    )()
    entry = gpu_check.measure(race, timer_on_a_card, {})
    assert entry["disagreement"] == "AssertionError: other rows"
    assert [promise["kept"] for promise in entry["promises"]] == [False]


def test_peers_that_do_a_part_are_scaled() -> None:
    race = races.Race("x", 1, lambda _: None, {"tenth": lambda _: None}, parts={"tenth": 10.0})
    timer = type("Fixed", (), {"device": CPU, "race": lambda *_: {"ours": 2.0, "tenth": 3.0}})()
    assert gpu_check.measure(race, timer, {})["ratios"] == {"tenth": 15.0}
