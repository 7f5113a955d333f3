"""Options of the races: python -m pytest bench [--threads 2] [--rounds 3] [-k predict]."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--threads", type=int, default=torch.get_num_threads(), help="CPU threads of every contender"
    )
    parser.addoption("--rounds", type=int, default=None, help="most rounds of every race; medians count")


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Give torch the threads that were asked for."""
    before, count = torch.get_num_threads(), request.config.getoption("--threads")
    torch.set_num_threads(count)
    yield count
    torch.set_num_threads(before)
