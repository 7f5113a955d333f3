"""Medians of device time, and the roofs of the card that they are compared with."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch

Contender = Callable[[int], object]  # takes the number of the input set to use


class Timer:
    """Device time of calls, in seconds; the processor's clock where there is no device.

    Args:
        device: what the calls run on.
        rounds: most timed calls.
        seconds: after which no further call is timed.
    """

    def __init__(self, device: torch.device, rounds: int = 15, seconds: float = 3.0) -> None:
        self.device, self.rounds, self.seconds = device, rounds, seconds

    def once(self, call: Callable[[], object]) -> float:
        if self.device.type != "cuda":
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        torch.cuda.synchronize(self.device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(500_000)  # cycles: the device waits while the host prepares what is timed
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(self.device)
        return float(start.elapsed_time(end)) / 1e3

    def race(self, contenders: dict[str, Contender], sets: int) -> dict[str, float]:
        """Medians by name; rounds interleaved, input sets rotating. The first call of each is not counted."""
        times: dict[str, list[float]] = {name: [] for name in contenders}
        slowest = sum(self.once(partial(call, 0)) for call in contenders.values())
        if slowest < self.seconds:  # the first call may have compiled or loaded something
            for call in contenders.values():
                call(1 % sets)
        until = time.perf_counter() + self.seconds
        for turn in range(self.rounds):
            for name, call in contenders.items():
                times[name].append(self.once(partial(call, turn % sets)))
            if time.perf_counter() > until:
                break
        return {name: median(values) for name, values in times.items()}


def sets_for(device: torch.device, size: int) -> int:
    """How many input sets of `size` bytes are together four times the second-level cache; at least two."""
    cache = torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else 1 << 20
    return max(2, min(1024, -(-4 * cache // max(1, size))))


def roofs(timer: Timer, side: int, copied: int) -> dict[str, float]:
    """TFLOP/s of square products on random data in three precisions, and GB/s read and written of a copy."""
    device = timer.device
    matrices = [torch.randn(side, side, device=device) for _ in range(2)]
    halves = [each.bfloat16() for each in matrices]
    flags = torch.backends.cuda.matmul
    before = flags.allow_tf32

    def product(allow: bool) -> Contender:
        def call(_: int) -> object:
            flags.allow_tf32 = allow
            return matrices[0] @ matrices[1]

        return call

    source = [torch.randn(copied // 4, device=device) for _ in range(2)]
    target = torch.empty_like(source[0])
    contenders = {
        "bf16": lambda _: halves[0] @ halves[1],
        "tf32": product(True),
        "fp32": product(False),
        "copy": lambda turn: target.copy_(source[turn]),
    }
    try:
        times = timer.race(contenders, 2)
    finally:
        flags.allow_tf32 = before
    found = {f"{name}_tflops": 2e-12 * side**3 / times[name] for name in ("bf16", "tf32", "fp32")}
    return {**found, "copy_gb_per_s": 2e-9 * copied / times["copy"]}


def smi(*fields: str) -> dict[str, str]:
    """What nvidia-smi says of the first card; nothing where it is missing."""
    if not shutil.which("nvidia-smi"):
        return {}
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else {}


def machine(device: torch.device) -> dict[str, Any]:
    """Names and versions."""
    found: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__, "device": "cpu"}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["device"], found["multiprocessors"] = properties.name, properties.multi_processor_count
        found["capability"] = f"{properties.major}.{properties.minor}"
        found["cuda"] = torch.version.cuda
        found |= smi("driver_version", "clocks.max.sm", "clocks.max.mem", "power.limit")
    if nvcc := shutil.which("nvcc", path=os.environ.get("CUDA_HOME", "") + "/bin") or shutil.which("nvcc"):
        text = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
        found["nvcc"] = text.split("release ")[-1].split(",")[0] if "release " in text else ""
    return found


def card_name(device: torch.device) -> str:
    """A file name: "NVIDIA H200" becomes "h200"."""
    if device.type != "cuda":
        return device.type
    name = torch.cuda.get_device_name(device).lower().replace("nvidia", "")
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")
