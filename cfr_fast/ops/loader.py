"""Find the native library at the first op call: prebuilt, else compiled now (JIT), else the reference serves.

`status()` says for every op which of the three it got and why.
"""

from __future__ import annotations

import sys
import threading
import warnings
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import torch

from cfr_fast.ops import registry
from cfr_fast.ops._build import MARKER, MODULE, BuildError, find_csrc, source_hash
from cfr_fast.ops._jit import compiled_library

PREBUILT = Path(__file__).resolve().parents[1] / MODULE


@dataclass(frozen=True)
class LoadedLibrary:
    """The native library in this process.

    Attributes:
        path: the binary.
        backend: "prebuilt" or "jit".
        module: its Python module (build information, choice of CPU kernels).
        cuda: whether it has CUDA kernels.
        reason: why it is this one, in a few words.
    """

    path: Path
    backend: str
    module: ModuleType
    cuda: bool
    reason: str


@dataclass(frozen=True)
class OpStatus:
    """Which implementation one op has on the CPU, whether it has a CUDA kernel, and why."""

    op: str
    backend: str
    cuda: bool
    reason: str


_lock = threading.Lock()
_done = False
_library: LoadedLibrary | None = None
_failure = ""


def _open(path: Path) -> ModuleType:
    """Load a binary; its ops are registered with torch as a side effect."""
    loader = ExtensionFileLoader("cfr_fast._native", str(path))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    sys.modules[loader.name] = module
    return module


def _open_prebuilt() -> ModuleType:
    if not PREBUILT.is_file():
        raise ImportError("no binary in the package")
    try:
        expected = source_hash(find_csrc())
    except BuildError:
        expected = ""  # without sources beside it, a binary cannot be out of date
    if MARKER + expected.encode() not in PREBUILT.read_bytes():
        raise ImportError(f"{PREBUILT.name} was built from other sources")
    return _open(PREBUILT)


def _find() -> tuple[LoadedLibrary | None, str]:
    try:
        module, path, backend, reason = _open_prebuilt(), PREBUILT, "prebuilt", "installed with the package"
    except ImportError as prebuilt_error:
        prebuilt = f"prebuilt: {prebuilt_error}"
        try:
            path = compiled_library(torch.version.cuda is not None)
            module, backend, reason = _open(path), "jit", f"compiled here; {prebuilt}"
        except (BuildError, ImportError) as jit_error:
            return None, f"{prebuilt}; JIT: {jit_error}"
    cuda = bool(module.build_info()["cuda_archs"])
    return LoadedLibrary(path, backend, module, cuda, reason), ""


def load() -> LoadedLibrary | None:
    """The native library, found once per process; None, after one warning, when the reference serves."""
    global _done, _library, _failure
    with _lock:
        if not _done:
            _library, _failure = _find()
            registry.register_all(native=_library is not None, cuda=_library is not None and _library.cuda)
            _done = True
            if _library is None:
                warnings.warn(
                    f"cfr_fast runs without its native kernels, several times slower. {_failure}",
                    RuntimeWarning,
                    stacklevel=2,
                )
    return _library


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def ready() -> bool:
    """Make every op of `torch.ops.cfr_fast` callable; torch.compile runs this while it traces."""
    load()
    return True


def status() -> list[OpStatus]:
    """One row per public op; finds the library first if no op was called yet."""
    library = load()
    rows = []
    for op in (op for op in registry.OPS if op.public):
        if library is None:
            rows.append(OpStatus(op.name, "reference", False, _failure))
        else:
            reason = f"{library.reason}; CPU kernels: {library.module.current_cpu_kernels()}"
            cuda = library.cuda and registry.has_cuda_kernel(op.name)
            rows.append(OpStatus(op.name, library.backend, cuda, reason))
    return rows
