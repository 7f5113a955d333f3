"""The CUDA kernels, compiled for the CPU and run thread by thread (see emulation/cuda_runtime.h)."""

from __future__ import annotations

import subprocess
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from cfr_fast.ops import _build, _jit

HEADERS = Path(__file__).resolve().parent / "emulation"


@dataclass(frozen=True)
class Emulated(_build.Recipe):
    """The recipe of the library with every .cu file as C++; objects of unchanged sources are used again."""

    def files(self) -> list[Path]:
        return [path for path in super().files() if path.name != "python.cpp"] + sorted(
            self.csrc.glob("cuda/*.cu")
        )

    def compile(self, source: Path) -> list[str]:
        if source.suffix != ".cu" and source.name != "ops.cpp":
            return super().compile(source)
        header = zlib.crc32(b"".join(path.read_bytes() for path in sorted(HEADERS.glob("*.h"))))
        command = [*_build.find_cxx(), *self.flags(), "-O1", "-DCFR_FAST_CUDA", "-DCFR_EMULATION"]
        command += [f"-DCFR_HEADER={header}", "-Wno-unused-function", "-isystem", str(HEADERS)]
        for folder in self.includes():
            command += ["-isystem", folder]
        return [*command, "-x", "c++", "-c", str(source)]


def run_probe(text: str, folder: Path) -> list[str]:
    """What a C++ program that includes headers of csrc/cuda prints, word by word."""
    source, program = folder / "probe.cpp", folder / "probe"
    source.write_text(text)
    includes = [f"-I{HEADERS}", f"-I{_build.find_csrc() / 'cuda'}"]
    command = [*_build.find_cxx(), "-std=c++17", "-O1", "-DCFR_EMULATION", *includes, str(source)]
    subprocess.run([*command, "-o", str(program)], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@cache
def ops() -> Any:
    """`torch.ops.cfr_emulated`: `<op>_cuda(..., stream)` on CPU tensors, through the checks of ops.cpp."""
    plain = _build.make_recipe(cuda="0")
    recipe = Emulated(plain.csrc, None, "", plain.torch, plain.cxxflags, plain.ldflags)
    folder = _jit.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "cfr_emulated.so"
    _build.build(recipe, target, folder / "objects")
    torch.ops.load_library(str(target))
    return torch.ops.cfr_emulated
