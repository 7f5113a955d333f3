"""Registers, spills and shared memory of every CUDA kernel, as ptxas reports them.

`python python_tests/cuda_registers.py` writes the table that test_cuda_build.py compares with.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cfr_fast.ops import _build, _jit

ARCHS = "8.0 9.0a"
TABLE = Path(__file__).with_suffix(".json")
MARGIN = 4  # registers that a kernel may take beyond its line in the table
COMMAND = "python python_tests/cuda_registers.py"

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
UNNAMED = re.compile(r"\d+_GLOBAL__N__[0-9a-f]{8}_\d+_\w+?_cu_[0-9a-f]{8}")  # nvcc's own name, with hashes


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture: registers a thread; bytes of the others."""

    registers: int
    shared: int
    spilled: int


Usages = dict[str, Usage]  # "file.cu kernel<arguments> sm_80"


def short_names(mangled: list[str]) -> list[str]:
    """Names of kernels without namespaces of ours, results and parameters."""
    given = "\n".join(UNNAMED.sub("12_GLOBAL__N_1", name) for name in mangled)
    done = subprocess.run(["c++filt", "-p"], input=given, capture_output=True, text=True, check=True)
    names = done.stdout.splitlines()
    ours = re.compile(r"^void |cfr::cuda::|\(anonymous namespace\)::")
    return [ours.sub("", name).replace("> >", ">>") for name in names]


def parse(file: str, log: str) -> Usages:
    """One entry for every kernel and architecture in the report of `ptxas -v`."""
    sections = re.split(r"(?=Compiling entry function)", log)[1:]
    heads = [ENTRY.search(section) for section in sections]
    found = [(head.group(1), head.group(2), text) for head, text in zip(heads, sections, strict=True) if head]
    usages = {}
    for name, (_, arch, text) in zip(short_names([item[0] for item in found]), found, strict=True):
        used, shared = USED.search(text), SHARED.search(text)
        assert used is not None, text
        spilled = sum(int(number) for pair in SPILLS.findall(text) for number in pair)
        usages[f"{file} {name} {arch}"] = Usage(
            int(used.group(1)), int(shared.group(1)) if shared else 0, spilled
        )
    return usages


def compile_one(recipe: _build.Recipe, source: Path) -> Usages:
    """Compile for all of ARCHS, warnings being errors; the log of an unchanged source is used again."""
    command = [str(recipe.nvcc), *_build.NVCC_FLAGS, *_build.gencode(ARCHS), "-Werror", "all-warnings"]
    command += ["-Xptxas", "-v", "-c", str(source), "-o", os.devnull]
    texts = [path.read_bytes() for path in [source, *sorted(recipe.csrc.rglob("*.h"))]]
    key = hashlib.sha256("\0".join(command).encode() + b"\0".join(texts)).hexdigest()[:16]
    kept = _jit.cache_folder() / "ptxas" / f"{source.stem}-{key}.log"
    if not kept.is_file():
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_text(done.stdout)
        partial.replace(kept)
    return parse(source.name, kept.read_text())


def measure() -> Usages:
    """Every kernel of csrc/cuda, sorted by name; needs nvcc."""
    recipe = _build.make_recipe(cuda="1")
    jobs = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)
    with ThreadPoolExecutor(jobs) as pool:
        parts = pool.map(lambda source: compile_one(recipe, source), sorted(recipe.csrc.glob("cuda/*.cu")))
    return dict(sorted((name, usage) for part in parts for name, usage in part.items()))


def release() -> str:
    """The release of nvcc, such as "13.0": another one allots registers in its own way."""
    nvcc = _build.find_cuda("1")
    text = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    assert found is not None, text
    return found.group(1)


def complaints(measured: Usages, table: Usages, same_release: bool) -> list[str]:
    """What is wrong, a line each."""
    lines = [
        f"{name}: in the table, but not in csrc/cuda; {COMMAND}" for name in table if name not in measured
    ]
    for name, usage in measured.items():
        known = table.get(name)
        if usage.spilled:
            lines.append(f"{name}: spills {usage.spilled} bytes")
        if known is None:
            lines.append(f"{name}: not in the table; {COMMAND}")
        elif same_release and usage.registers > known.registers + MARGIN:
            lines.append(f"{name}: {usage.registers} registers, {known.registers} in the table")
        elif same_release and usage.shared > known.shared:
            lines.append(f"{name}: {usage.shared} bytes of shared memory, {known.shared} in the table")
    return lines


def read_table() -> tuple[str, Usages]:
    """Release of nvcc and usages."""
    content = json.loads(TABLE.read_text())
    table = {name: Usage(registers, shared, 0) for name, (registers, shared) in content["kernels"].items()}
    return content["nvcc"], table


def write_table() -> None:
    lines = [
        f"    {json.dumps(name)}: [{usage.registers}, {usage.shared}]" for name, usage in measure().items()
    ]
    text = ",\n".join(lines)
    head = f'  "nvcc": "{release()}",\n  "columns": ["registers a thread", "bytes of static shared memory"],'
    TABLE.write_text(f'{{\n{head}\n  "kernels": {{\n{text}\n  }}\n}}\n')


if __name__ == "__main__":
    write_table()
