"""What the machine itself can do: the roof that every kernel's figures are compared with."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from cfr_fast.ops import loader

SGEMM = 2048  # side of the square product
COPIED = 256 << 20  # bytes


@dataclass(frozen=True)
class Machine:
    """The best of a few tries each.

    Args:
        processor: its name.
        threads: of torch.
        torch: version.
        kernels: CPU variant in use, or None without the native library.
        sgemm: 1e9 floating-point operations a second of torch.mm, 2,048 cubed.
        fma_peak: the same of multiply-adds in registers; None without the native library.
        copy: 1e9 bytes a second, read and written, of a large copy.
    """

    processor: str
    threads: int
    torch: str
    kernels: str | None
    sgemm: float
    fma_peak: float | None
    copy: float


def measure_machine() -> Machine:
    """Measure with torch's current number of threads; about three seconds."""
    library = loader.load()
    module = library.module if library else None
    a, b = torch.randn(SGEMM, SGEMM), torch.randn(SGEMM, SGEMM)
    product = torch.empty(SGEMM, SGEMM)
    source, target = torch.ones(COPIED // 4), torch.empty(COPIED // 4)
    return Machine(
        processor=_processor(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        kernels=module.current_cpu_kernels() if module else None,
        sgemm=2 * SGEMM**3 / _best(lambda: torch.mm(a, b, out=product), 7) / 1e9,
        fma_peak=max(module.fma_peak() for _ in range(5)) / 1e9 if module else None,
        copy=2 * COPIED / _best(lambda: target.copy_(source), 7) / 1e9,
    )


def _best(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
