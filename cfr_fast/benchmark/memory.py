"""Peak memory of a call, from the operating system's own count."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def available() -> bool:
    """Whether this system counts the peak and lets it start anew (Linux)."""
    return STATUS.is_file() and CLEAR.exists()


def peak(call: Callable[[], object]) -> int:
    """Bytes by which the process grew at most while `call` ran."""
    gc.collect()
    _give_back_freed()
    restart()
    before = _read("VmRSS")
    call()
    return largest() - before


def restart() -> None:
    """Let the peak begin anew at the present size."""
    CLEAR.write_text("5")


def largest() -> int:
    """Bytes that the process held at most since `restart`, or ever."""
    return _read("VmHWM")


def _give_back_freed() -> None:
    """Free memory that the allocator keeps would serve the call unseen."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)


def _read(name: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name} in {STATUS}")
