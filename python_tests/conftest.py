"""Where the tests find real samples and golden outputs; absent ones skip with a reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cfr_fast.ops import loader, registry

SHARED = Path(__file__).resolve().parents[2] / "shared"


NO_DEVICE = "no CUDA device here"  # why tests that need one are skipped


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # tests side by side share the processors, and so do their children
        torch.set_num_threads(1)
        os.environ.setdefault("OMP_NUM_THREADS", "1")


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


@contextmanager
def _cpu_kernels(variant: str) -> Iterator[None]:
    library = loader.load()
    if library is None:
        pytest.skip("no native library here")
    if variant not in library.module.cpu_kernels():
        pytest.skip(f"this processor has no {variant}")
    before = library.module.current_cpu_kernels()
    library.module.use_cpu_kernels(variant)
    yield
    library.module.use_cpu_kernels(before)


@pytest.fixture(params=["avx2", "portable"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test with every CPU variant of the native library."""
    with _cpu_kernels(request.param):
        yield request.param


ON_DEVICE = pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_DEVICE)


@pytest.fixture(params=["reference", "avx2", "portable", pytest.param("cuda", marks=ON_DEVICE)])
def device_of_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run a test with every implementation of the ops; gives the device that it runs on."""
    loader.ready()
    if request.param == "cuda":
        assert all(registry.has_cuda_kernel(name) for name in ("topk_cosine", "replace_and_score"))
        yield "cuda"
    elif request.param == "reference":
        namespace = SimpleNamespace(**{op.name: op.reference for op in registry.OPS})
        monkeypatch.setattr(torch.ops, registry.NAMESPACE, namespace)
        yield "cpu"
    else:
        with _cpu_kernels(request.param):
            yield "cpu"
