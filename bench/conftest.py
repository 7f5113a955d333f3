"""Races: an op and its peers on the same data in one process, their rounds interleaved, ratios printed.

    python -m pytest bench [--threads 2] [--rounds 7]

The machine should be quiet; pytest-benchmark's own options (`--benchmark-json` and so on) work as usual.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import pytest
import torch

Race = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--threads", type=int, default=torch.get_num_threads(), help="CPU threads of every contender"
    )
    parser.addoption("--rounds", type=int, default=7, help="rounds of every race; medians count")


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Give torch the threads that were asked for."""
    before, count = torch.get_num_threads(), request.config.getoption("--threads")
    torch.set_num_threads(count)
    yield count
    torch.set_num_threads(before)


@pytest.fixture
def race(benchmark: Any, request: pytest.FixtureRequest) -> Race:
    """Time `ours` against peers; ratios go to the screen and into the benchmark's extra information."""

    def run(work: float | None, ours: Callable[[], object], **peers: Callable[[], object]) -> None:
        """Args: floating-point operations of one call if they matter, our function, and the peers by name."""

        def speed(seconds: float) -> str:
            rate = "" if work is None else f" {work / seconds / 1e9:8.1f} GFLOP/s"
            return f"{seconds * 1e3:9.1f} ms{rate}"

        times: dict[str, list[float]] = {name: [] for name in peers}

        def time_peers() -> None:
            for name, peer in peers.items():
                start = time.perf_counter()
                peer()
                times[name].append(time.perf_counter() - start)

        rounds = request.config.getoption("--rounds")
        benchmark.pedantic(ours, setup=time_peers, rounds=rounds, warmup_rounds=1)
        own = benchmark.stats.stats.median
        lines = [f"{'cfr_fast':>16} {speed(own)}"]
        for name, all_times in times.items():
            peer_time = median(all_times[1:])  # the first round warmed up
            benchmark.extra_info[name] = peer_time / own
            lines.append(f"{name:>16} {speed(peer_time)}   cfr_fast is {peer_time / own:5.2f} × as fast")
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\n{request.node.name}, medians of {rounds}\n" + "\n".join(lines))

    return run
