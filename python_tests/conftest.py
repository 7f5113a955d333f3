"""Where the tests find real samples and golden outputs; absent ones skip with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cfr_fast.ops import loader

SHARED = Path(__file__).resolve().parents[2] / "shared"


NO_DEVICE = "no CUDA device here"  # why tests that need one are skipped


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device-only", action="store_true", help="only tests that need a CUDA device")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device-only"):
        items[:] = [
            item
            for item in items
            if any(mark.kwargs.get("reason") == NO_DEVICE for mark in item.iter_markers("skipif"))
        ]


def _existing(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.relative_to(SHARED.parent)} is not present beside the repository")
    return path


@pytest.fixture(scope="session")
def shared() -> Path:
    return _existing(SHARED)


@pytest.fixture(scope="session")
def cable_gland() -> Path:
    """A part of MVTec 3D-AD's cable_gland, raw, in its own layout."""
    return _existing(SHARED / "data" / "mvtec3d" / "cable_gland")


@pytest.fixture(scope="session")
def candy_cane() -> Path:
    """A part of Eyecandies' CandyCane, in its own raw layout."""
    return _existing(SHARED / "data" / "eyecandies" / "CandyCane")


@pytest.fixture(scope="session")
def golden() -> Path:
    """What the authors' scripts computed."""
    return _existing(SHARED / "golden" / "authors")


@pytest.fixture(scope="session")
def weights() -> Path:
    return _existing(SHARED / "weights")


@pytest.fixture(params=["avx2", "portable"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test with every CPU variant of the native library."""
    library = loader.load()
    if library is None:
        pytest.skip("no native library here")
    if request.param not in library.module.cpu_kernels():
        pytest.skip(f"this processor has no {request.param}")
    before = library.module.current_cpu_kernels()
    library.module.use_cpu_kernels(request.param)
    yield request.param
    library.module.use_cpu_kernels(before)
