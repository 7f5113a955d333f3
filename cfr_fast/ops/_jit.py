"""Compile the native library at first use and keep it in a cache.

Environment: `CFR_FAST_CACHE` is the cache folder (else `$XDG_CACHE_HOME/cfr_fast` or `~/.cache/cfr_fast`; on
macOS `~/Library/Caches/cfr_fast`); `CFR_FAST_JIT=0` switches compilation off.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cfr_fast.ops._build import MODULE, BuildError, Recipe, build, find_cxx, make_recipe


def cache_folder() -> Path:
    """Where compiled libraries are kept."""
    if chosen := os.environ.get("CFR_FAST_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "cfr_fast"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cfr_fast"


@contextmanager
def _spinner(text: str) -> Iterator[None]:
    from rich.console import Console  # only here: the ops themselves need nothing but torch
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(text, total=None)
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock on `path`; the system releases it when its holder dies, however it dies."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(recipe: Recipe, target: Path, cache: Path) -> None:
    log_file = target.with_name("build.log")
    find_cxx()
    try:
        log = build(recipe, target, cache / "objects")
    except BuildError as error:
        log_file.write_text(str(error))
        lines = [line for line in str(error).splitlines() if "error" in line] or str(error).splitlines()[-1:]
        raise BuildError(f"compilation failed: {lines[0].strip()} (full log: {log_file})") from None
    log_file.write_text(log)


def compiled_library(torch_has_cuda: bool) -> Path:
    """The library for this environment, from the cache or compiled now.

    Args:
        torch_has_cuda: unless `CFR_FAST_CUDA` is set, CUDA kernels are compiled for such a torch only.

    Raises:
        BuildError: switched off, no compiler, a failed compilation (its full log is kept and named), or a
            cache that cannot be written.
    """
    if os.environ.get("CFR_FAST_JIT", "1") == "0":
        raise BuildError("switched off by CFR_FAST_JIT=0")
    recipe = make_recipe(None if torch_has_cuda or "CFR_FAST_CUDA" in os.environ else "0")
    cache = cache_folder()
    folder = cache / recipe.fingerprint()
    target = folder / MODULE
    if target.is_file():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _spinner("compiling native kernels (once)"), _locked(folder / "lock"):
            if not target.is_file():
                _compile(recipe, target, cache)
    except OSError as error:
        hint = f"set CFR_FAST_CACHE to a folder that can be written, such as {tempfile.gettempdir()}/cfr_fast"
        raise BuildError(f"cannot compile in {cache}: {error}; {hint}") from None
    return target
