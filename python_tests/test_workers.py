"""Two processes share one benchmark; one that fails or dies ends it, and a rerun completes it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch.distributed import HashStore
from toy_suite import toy_suite

from cfr_fast.data import synthetic
from cfr_fast.errors import InputError
from cfr_fast.evaluation.suite import run_suite
from cfr_fast.progress import time_left
from cfr_fast.workers import Workers, WorkersError

HERE = Path(__file__).resolve().parent
SCRIPT = [str(HERE / "toy_suite.py")]
FAST = [
    "--size",
    "32",
    "--set",
    "mapper_epochs=2",
    "attention_epochs=1",
    "shot_views=1",
    "calibration_views=1",
]
Outcome = tuple[int, str, str]


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def both(program: list[str]) -> list[Outcome]:
    """The program in two processes, set up as torchrun does, but without anybody watching over them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in ("0", "1"):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, *program], env=environment(**place), **pipes))
    outputs = [process.communicate(timeout=120) for process in started]
    return [(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]


def torchrun(program: list[str]) -> Outcome:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, *program], env=environment(), capture_output=True, text=True, timeout=180, check=False
    )
    return done.returncode, done.stdout, done.stderr


def figures(folder: Path) -> list[dict]:
    """All results but for their timings."""
    found = json.loads((folder / "results.json").read_text())["results"]
    return [{**row, "fit_seconds": 0, "predict_seconds": 0} for row in found]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in (folder / "results").rglob("*.json")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the toy suite."""
    folder = tmp_path_factory.mktemp("alone") / "out"
    run_suite(toy_suite(), folder)
    return folder


def in_threads(do: Callable[[Workers], object]) -> list[object]:
    """What two workers of one run return or raise, each in a thread."""
    store = HashStore()
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(do, Workers(rank, 2, rank, store)) for rank in range(2)]
        return [future.exception(timeout=60) or future.result() for future in futures]


def test_one_that_fails_ends_the_run_and_another_completes_it(tmp_path: Path, alone: Path) -> None:
    out = tmp_path / "out"
    failing: list[threading.Thread] = []
    begun = threading.Event()

    def trouble(sample: object) -> None:
        if not failing:
            failing.append(threading.current_thread())
        if failing == [threading.current_thread()]:
            assert begun.wait(30)  # so that the other one has an item to finish
            raise InputError("part.tiff", "an intact file", "a broken one")
        begun.set()

    suite = toy_suite(0.02, trouble)
    error, nothing = in_threads(lambda worker: run_suite(suite, out, worker))
    assert isinstance(error, WorkersError)
    assert nothing == []
    assert re.match(
        r"process [01], almond, \d shot, seed \d+: part.tiff: expected an intact file", str(error)
    )
    assert "the same command goes on" in str(error)
    done = files(out)
    assert 0 < len(done) < 24  # what was begun is finished, and nothing else was started
    assert len(figures(out)) == len(done)
    first, second = in_threads(lambda worker: run_suite(toy_suite(), out, worker))
    assert second == []
    assert len(first) == 24  # type: ignore[arg-type]
    assert figures(out) == figures(alone)


def test_every_item_is_done_once_and_by_whoever_is_free() -> None:
    done: list[tuple[int, int]] = []

    def work(worker: Workers) -> object:
        def do(item: int) -> None:
            time.sleep(0.4 if item == 0 else 0.01)
            done.append((item, worker.rank))

        worker.work("Working", range(12), str, do)
        return worker.lead(lambda: {"made": 1})

    assert in_threads(work) == [{"made": 1}] * 2
    assert sorted(item for item, _ in done) == list(range(12))
    busy = next(rank for item, rank in done if item == 0)
    assert sum(rank == busy for _, rank in done) < 6  # it had one long item, the other the short ones


def test_what_the_leading_process_refuses_is_said_once() -> None:
    def refuse() -> None:
        raise InputError("--methods", "a method", "cfx")

    error, quiet = in_threads(lambda worker: worker.lead(refuse))
    assert isinstance(error, InputError)
    assert isinstance(quiet, SystemExit)
    assert quiet.code == 0


def test_one_that_falls_silent_is_named(tmp_path: Path) -> None:
    """Without torchrun nobody tells the leading process that another one died."""
    program = [*SCRIPT, str(tmp_path / "out"), "--delay", "0.05", "--trouble", "die", "--silence", "4"]
    (code, _, error), (other, _, _) = both(program)
    assert (code, other) == (2, -9)
    (line,) = error.splitlines()
    assert re.match(r"cfr: process 1, almond, \d shot, seed \d+, has stopped: no sign of life for 4 s", line)
    assert 0 < len(files(tmp_path / "out")) == len(figures(tmp_path / "out")) < 24


def test_torchrun_says_who_died(tmp_path: Path, alone: Path) -> None:
    out = tmp_path / "out"
    code, _, error = torchrun([*SCRIPT, str(out), "--delay", "0.02", "--trouble", "die"])
    assert code != 0
    (line,) = [line for line in error.splitlines() if line.startswith("cfr:")]
    assert line.startswith("cfr: process 1, ")
    assert "has died; what is done is kept" in line
    assert 0 < len(files(out)) < 24
    run_suite(toy_suite(), out)
    assert figures(out) == figures(alone)


def test_commands_spread_over_processes(tmp_path: Path) -> None:
    """`cfr evaluate` and `cfr fit` in two processes do what one does, and say it once."""
    synthetic.write_dataset(
        tmp_path / "set", categories=["cookie", "praline"], train=1, good=1, defective_per_type=1, size=64
    )
    command = ["-m", "cfr_fast"]
    evaluate = ["evaluate", "--data", str(tmp_path / "set"), "--methods", "cfr", "patchcore-3d", *FAST]
    code, shown, _ = torchrun([*command, *evaluate, "-o", str(tmp_path / "two")])
    assert code == 0
    assert shown.count("procedural · 2 categories") == 1
    from cfr_fast.cli import main

    assert main([*evaluate, "-o", str(tmp_path / "one"), "--no-pictures"]) == 0
    assert figures(tmp_path / "two") == figures(tmp_path / "one")
    fit = ["fit", "--data", str(tmp_path / "set"), "--category", "all", "-o", str(tmp_path / "models"), *FAST]
    (code, shown, _), (other, quiet, _) = both([*command, *fit, "--json"])
    assert (code, other, quiet) == (0, 0, "")
    assert json.loads(shown)["fitted"] == ["cookie", "praline"]
    assert sorted(path.name for path in (tmp_path / "models").glob("[!.]*")) == [
        *("cookie.cfr.safetensors", "fit.json", "praline.cfr.safetensors")
    ]


def test_a_process_alone_needs_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    single = Workers.join()
    done: list[int] = []
    single.work("Working", [3, 1, 2], str, done.append)
    assert done == [3, 1, 2]
    assert single.leads
    assert single.lead(lambda: 5) == 5
    assert single.device("auto") == "auto"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match="torchrun"):
        Workers.join()


def test_the_time_left_is_that_of_the_mean_pace() -> None:
    assert time_left(30.0, 3, 12) == 90.0
    assert time_left(30.0, 12, 12) == 0.0
    assert time_left(30.0, 0, 12) is time_left(None, 3, 12) is time_left(30.0, 3, None) is None
