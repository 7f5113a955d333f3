"""The races of `cfr bench` under pytest-benchmark: its options and its files of results work as usual."""

from __future__ import annotations

from typing import Any

import pytest

from cfr_fast.benchmark import RACES, run
from cfr_fast.ops import loader


@pytest.mark.parametrize("name", RACES)
def test_race(name: str, benchmark: Any, request: pytest.FixtureRequest) -> None:
    assert loader.load() is not None
    outcome = benchmark.pedantic(
        run, args=(name, RACES[name](), request.config.getoption("--rounds")), rounds=1, iterations=1
    )
    lines = [f"{outcome.what}: ours {outcome.ours:.4g} {outcome.unit}"]
    for peer, theirs in outcome.peers.items():
        benchmark.extra_info[peer] = outcome.ratio(peer)
        lines.append(f"{peer:>28}: {theirs:.4g} {outcome.unit}, ratio {outcome.ratio(peer):.2f}")
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + "\n".join(lines))
