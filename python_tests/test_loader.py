"""What the loader and the recipe decide, and what they say when something is missing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cfr_fast import ops
from cfr_fast.ops import _build, _jit, loader, registry


def test_every_public_op_has_a_status() -> None:
    rows = {row.op: row for row in loader.status()}
    assert set(rows) == set(ops.__all__) - {"Interpolated"}
    assert all(row.reason for row in rows.values())
    assert rows["topk_cosine"].backend == ("reference" if loader.load() is None else loader.load().backend)


def test_where_there_is_a_compiler_the_kernels_are_native() -> None:
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        pytest.skip("no C++ compiler here")
    library = loader.load()
    assert library is not None
    info = library.module.build_info()
    assert info["sources"] == _build.source_hash(_build.find_csrc())
    assert info["compiler"]
    assert "-O3" in info["flags"]
    assert library.module.current_cpu_kernels() == library.module.cpu_kernels()[0]
    with pytest.raises(ValueError, match="no such CPU variant here: avx9"):
        library.module.use_cpu_kernels("avx9")
    binary = library.path.read_bytes()
    assert b"libtorch_cpu.so" in binary
    assert b"libtorch_cuda" not in binary
    assert b"libgomp" not in binary  # threads come from torch's own pool


def test_native_schemas_equal_the_references() -> None:
    loader.ready()
    for op in registry.OPS:
        schema = getattr(torch.ops.cfr_fast, op.name).default._schema
        assert str(schema) == f"cfr_fast::{op.name}{op.schema()}"


def test_a_binary_with_a_missing_symbol_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "broken.cpp"
    marker = _build.MARKER.decode() + _build.source_hash(_build.find_csrc())
    source.write_text(
        f'extern "C" int torch_of_another_time();\nextern "C" const char cfr_marker[] = "{marker}";\n'
        'extern "C" void* PyInit__native() { return (void*)(long)torch_of_another_time(); }\n'
    )
    binary = tmp_path / _build.MODULE
    subprocess.run([*_build.find_cxx(), "-shared", "-fPIC", str(source), "-o", str(binary)], check=True)
    monkeypatch.setattr(loader, "PREBUILT", binary)
    monkeypatch.setenv("CFR_FAST_JIT", "0")
    library, failure = loader._find()
    assert library is None
    assert "prebuilt: " in failure
    assert "torch_of_another_time" in failure
    assert failure.endswith("JIT: switched off by CFR_FAST_JIT=0")


def test_a_failed_compilation_keeps_and_names_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho 'ops.cpp:1: error: no such thing'\necho more\nexit 3\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("CFR_FAST_CACHE", str(tmp_path / "cache"))
    with pytest.raises(_build.BuildError, match="error: no such thing") as caught:
        _jit.compiled_library(torch_has_cuda=False)
    (log,) = (tmp_path / "cache").glob("*/build.log")
    assert str(log) in str(caught.value)
    assert "more\nexit code 3" in log.read_text()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CFR_FAST_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(_build.BuildError, match="set CFR_FAST_CACHE to a folder that can be written"):
        _jit.compiled_library(torch_has_cuda=False)


def test_a_killed_build_leaves_no_lock(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, signal, sys\nfrom cfr_fast.ops._jit import _locked\n"
        "with _locked(pathlib.Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    lock = tmp_path / "lock"
    environment = {**os.environ, "PYTHONPATH": str(Path(ops.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script, str(lock)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert lock.exists()
    with _jit._locked(lock):
        pass


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CFR_FAST_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert _jit.cache_folder() == tmp_path / "cfr_fast"
    monkeypatch.setenv("CFR_FAST_CACHE", str(tmp_path / "mine"))
    assert _jit.cache_folder() == tmp_path / "mine"


def test_flags_change_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _build.make_recipe("0")
    monkeypatch.setenv("CXXFLAGS", "-g -DOTHER")
    other = _build.make_recipe("0")
    assert other.flags()[-2:] == ["-g", "-DOTHER"]
    assert other.fingerprint() != plain.fingerprint()
    assert _build.make_recipe("0").fingerprint() == other.fingerprint()
    assert not any(path.suffix == ".cu" for path in plain.files())


def test_cuda_architectures() -> None:
    assert _build.gencode("8.0+PTX 9.0a") == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_80,code=compute_80",
        "-gencode=arch=compute_90a,code=sm_90a",
    ]
    assert _build.gencode("7.5 12.0") == [
        "-gencode=arch=compute_75,code=sm_75",
        "-gencode=arch=compute_120,code=sm_120",
    ]
    with pytest.raises(_build.BuildError, match="TORCH_CUDA_ARCH_LIST: expected entries such as"):
        _build.gencode("Hopper")


def test_cuda_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert _build.find_cuda("0") is None
    assert _build.find_cuda("auto") is None
    with pytest.raises(_build.BuildError, match="CFR_FAST_CUDA=1, but no nvcc"):
        _build.find_cuda("1")
    monkeypatch.setenv("CFR_FAST_CUDA", "yes")
    with pytest.raises(_build.BuildError, match="CFR_FAST_CUDA: expected 0, 1 or auto, got yes"):
        _build.find_cuda()
