"""How the native library comes to be: compiled at first use, ahead of time, by CMake, or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from isolated import run_op

ROOT = Path(__file__).resolve().parents[1]
KEPT = (
    "cfr_fast",
    "csrc",
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "CMakeLists.txt",
    "constraints.txt",
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing in the checkout."""
    tree = tmp_path_factory.mktemp("tree")
    for name in KEPT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(source, tree)
    (tree / "README.md").touch()
    return tree


def build_wheel(tree: Path, out: Path, **environment: str) -> zipfile.ZipFile:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "-q",
        "-w",
        str(out),
        str(tree),
    ]
    subprocess.run(command, env={**os.environ, **environment}, check=True)
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def pure(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a pure-Python wheel lays it down."""
    folder = tmp_path_factory.mktemp("pure")
    with build_wheel(tree, folder / "wheel", CFR_FAST_BUILD="0") as wheel:
        assert wheel.filename is not None
        assert wheel.filename.endswith("-py3-none-any.whl")
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jit") / "cache"


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_wheel_and_sdist_carry_all_sources(tree: Path, pure: Path, tmp_path: Path) -> None:
    sources = files_under(ROOT / "csrc")
    assert {"ops.cpp", "cpu/topk_cosine.cpp", "cuda/topk_cosine.cu", "common.h"} <= sources
    assert files_under(pure / "cfr_fast" / "csrc") == sources
    assets = files_under(ROOT / "cfr_fast" / "report" / "assets")
    assert {"page.html", "report.css", "report.js"} == assets
    assert files_under(pure / "cfr_fast" / "report" / "assets") == assets
    subprocess.run([sys.executable, "setup.py", "-q", "sdist", "-d", str(tmp_path)], cwd=tree, check=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"csrc/{name}" for name in sources} | {"setup.py", "CMakeLists.txt", "constraints.txt"} <= names
    assert {f"cfr_fast/report/assets/{name}" for name in assets} <= names


def test_wheel_without_binary_compiles_at_first_use_and_once(pure: Path, cache: Path) -> None:
    first = run_op(pure, cache)
    assert (first.right, first.backend, first.warnings) == (True, "jit", [])
    assert Path(first.path).is_relative_to(cache)
    assert "no binary in the package" in first.reason
    built = Path(first.path).stat().st_mtime_ns
    again = run_op(pure, cache, PATH="", CXX="")
    assert (again.right, again.backend) == (True, "jit")
    assert Path(again.path).stat().st_mtime_ns == built


def test_wheel_with_binary_loads_it(tree: Path, pure: Path, cache: Path, tmp_path: Path) -> None:
    if not (cache / "objects").is_dir():
        run_op(pure, cache)
    folder = f"temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    shutil.copytree(cache / "objects", tree / "build" / folder)  # saves compiling the same sources again
    with build_wheel(tree, tmp_path / "wheel", CFR_FAST_BUILD="1", CFR_FAST_CUDA="0") as wheel:
        wheel.extractall(tmp_path / "site")
    outcome = run_op(tmp_path / "site", tmp_path / "cache", CFR_FAST_JIT="0")
    assert (outcome.right, outcome.backend, outcome.warnings) == (True, "prebuilt", [])
    assert not (tmp_path / "cache").exists()
    # One changed source, and the binary is no longer trusted.
    with (tmp_path / "site" / "cfr_fast" / "csrc" / "common.h").open("a") as header:
        header.write("// changed\n")
    stale = run_op(tmp_path / "site", tmp_path / "cache", CFR_FAST_JIT="0")
    assert (stale.right, stale.backend) == (True, "reference")
    assert "was built from other sources" in stale.reason


@pytest.mark.skipif(not shutil.which("cmake"), reason="no cmake here")
def test_cmake_builds_the_same_binary(
    tree: Path, pure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With CUDA where nvcc is present: the result must load where no driver is."""
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0")  # one is enough here and takes half the time
    build = tmp_path / "build"
    python = f"-DPython_EXECUTABLE={sys.executable}"
    subprocess.run(["cmake", "-S", tree, "-B", build, python], check=True, capture_output=True)
    done = subprocess.run(
        ["cmake", "--build", build, "--parallel"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout + done.stderr
    (binary,) = build.glob("_native*.so")
    site = tmp_path / "site"
    shutil.copytree(pure, site)
    shutil.copy(binary, site / "cfr_fast")
    outcome = run_op(site, tmp_path / "cache", CFR_FAST_JIT="0")
    assert (outcome.right, outcome.backend) == (True, "prebuilt")
    assert outcome.cuda == bool(shutil.which("nvcc"))


@pytest.mark.parametrize(
    ("environment", "cause"),
    [
        ({"PATH": "", "CXX": ""}, "no C++ compiler found"),
        ({"CXX": "false"}, "compilation failed"),
        ({"CFR_FAST_JIT": "0"}, "switched off by CFR_FAST_JIT=0"),
    ],
)
def test_without_a_compiler_the_reference_serves_and_says_so_once(
    pure: Path, tmp_path: Path, environment: dict[str, str], cause: str
) -> None:
    outcome = run_op(pure, tmp_path / "cache", **environment)
    assert (outcome.right, outcome.backend) == (True, "reference")
    (warning,) = outcome.warnings
    assert "prebuilt: no binary in the package; JIT: " in warning
    assert cause in warning
    assert outcome.reason in warning
