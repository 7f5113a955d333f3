"""The one build recipe: `setup.py`, the JIT fallback and CMake all compile and link with what is said here.

Only the standard library is imported, so that the file also runs by its path before cfr_fast is installed:
`python cfr_fast/ops/_build.py` prints the recipe for CMake.

Environment: `CXX`, `CXXFLAGS` and `LDFLAGS` as usual; `CFR_FAST_CUDA` is 0, 1 or auto (when nvcc is found);
`TORCH_CUDA_ARCH_LIST` such as "8.0;9.0a+PTX"; `MAX_JOBS` bounds the compilers that run at once.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

MODULE = f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
MARKER = b"CFR_FAST_SOURCES="
CUDA_ARCHS = "8.0+PTX 9.0a"
CPP_SOURCES = ("ops.cpp", "build_info.cpp", "python.cpp")  # and every file in cpu/ and evaluation/
CXX_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
NVCC_FLAGS = ("-std=c++17", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall,-Wextra")


class BuildError(RuntimeError):
    """The native library cannot be built; the message says why and what to do."""


def find_csrc() -> Path:
    """The C++ sources: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).resolve()
    for folder in (here.parents[1] / "csrc", here.parents[2] / "csrc"):
        if (folder / "ops.cpp").is_file():
            return folder
    raise BuildError("the C++ sources (csrc) are not part of this installation")


def source_hash(csrc: Path) -> str:
    """A hash of the names and contents of all sources and headers."""
    digest = hashlib.sha256()
    for file in sorted(path for path in csrc.rglob("*") if path.suffix in (".cpp", ".h", ".cu")):
        digest.update(f"{file.relative_to(csrc).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def find_cuda(wanted: str | None = None) -> Path | None:
    """The nvcc to build with, or None to build without CUDA; `wanted` defaults to `CFR_FAST_CUDA`."""
    wanted = wanted or os.environ.get("CFR_FAST_CUDA", "auto")
    if wanted not in ("0", "1", "auto"):
        raise BuildError(f"CFR_FAST_CUDA: expected 0, 1 or auto, got {wanted}")
    if wanted == "0":
        return None
    home = os.environ.get("CUDA_HOME")
    found = shutil.which("nvcc", path=f"{home}/bin" if home else None) or shutil.which("nvcc")
    if found is None and wanted == "1":
        raise BuildError("CFR_FAST_CUDA=1, but no nvcc on PATH or in CUDA_HOME")
    return Path(found).resolve() if found else None


def cuda_libraries(nvcc: Path) -> list[Path]:
    """The library folders of nvcc's own toolkit; nvcc may be a script elsewhere that calls the real one."""
    plan = subprocess.run([str(nvcc), "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True)
    tops = [line.split("TOP=")[1] for line in plan.stderr.splitlines() if "TOP=" in line]
    root = Path(tops[0]).resolve() if tops else nvcc.parents[1]
    folders = [root / "lib64", root / "lib", *root.glob("targets/*/lib")]
    return [folder for folder in folders if (folder / "libcudart_static.a").is_file()]


def find_cxx() -> list[str]:
    """The C++ compiler command."""
    if command := os.environ.get("CXX"):
        return shlex.split(command)
    for name in ("g++", "clang++", "c++"):
        if path := shutil.which(name):
            return [path]
    raise BuildError("no C++ compiler found (looked for $CXX, g++, clang++, c++); install g++")


def gencode(archs: str) -> list[str]:
    """The nvcc options for architectures such as "8.0+PTX 9.0a"."""
    options = []
    for arch in archs.split():
        number = arch.removesuffix("+PTX").replace(".", "")
        if not number.rstrip("af").isdigit():
            raise BuildError(f"TORCH_CUDA_ARCH_LIST: expected entries such as 9.0a or 8.0+PTX, got {arch}")
        kinds = ("sm", "compute") if arch.endswith("+PTX") else ("sm",)
        options += [f"-gencode=arch=compute_{number},code={kind}_{number}" for kind in kinds]
    return options


@dataclass(frozen=True)
class Recipe:
    """Compiler and linker commands for one state of the sources and the environment."""

    csrc: Path
    nvcc: Path | None
    archs: str
    torch: Path
    cxxflags: list[str]
    ldflags: list[str]
    sources: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", source_hash(self.csrc))

    def files(self) -> list[Path]:
        """All sources to compile."""
        files = [self.csrc / name for name in CPP_SOURCES]
        files += sorted(self.csrc.glob("cpu/*.cpp")) + sorted(self.csrc.glob("evaluation/*.cpp"))
        return files + sorted(self.csrc.glob("cuda/*.cu")) if self.nvcc else files

    def includes(self) -> list[str]:
        """Folders of system headers: torch (pybind11 comes with it) and Python."""
        return [str(self.torch / "include"), sysconfig.get_path("include")]

    def flags(self) -> list[str]:
        """Options of every C++ source."""
        cuda = ["-DCFR_FAST_CUDA"] if self.nvcc else []
        return [*CXX_FLAGS, *cuda, *self.cxxflags]

    def definitions(self) -> list[str]:
        """What `build_info.cpp` alone is told."""
        texts = {
            "CFR_FAST_SOURCES": self.sources,
            "CFR_FAST_FLAGS": " ".join(self.flags()),
            "CFR_FAST_CUDA_ARCHS": self.archs if self.nvcc else "",
        }
        return [f'{name}="{text}"' for name, text in texts.items()]

    def compile(self, source: Path) -> list[str]:
        """The command that compiles one source; the caller adds `-o` and the object."""
        if source.suffix == ".cu":
            return [str(self.nvcc), *NVCC_FLAGS, *gencode(self.archs), "-c", str(source)]
        command = [*find_cxx(), *self.flags()]
        if source.name == "build_info.cpp":
            command += [f"-D{definition}" for definition in self.definitions()]
        for folder in self.includes():
            command += ["-isystem", folder]
        return [*command, "-c", str(source)]

    def link_flags(self) -> list[str]:
        """Options after the objects. CUDA's runtime goes in whole: no driver is needed to load the result."""
        flags = [f"-L{self.torch / 'lib'}", "-ltorch_cpu"]
        if self.nvcc:
            flags += [f"-L{folder}" for folder in cuda_libraries(self.nvcc)]
            flags += ["-lcudart_static", "-ldl", "-lrt", "-lpthread", "-Wl,--exclude-libs,ALL"]
        if sys.platform == "darwin":
            flags += ["-undefined", "dynamic_lookup"]
        return [*flags, *self.ldflags]

    def fingerprint(self) -> str:
        """A hash of what the binary depends on; not the compiler, which a cached binary does without."""
        parts = [self.sources, MODULE, platform.machine(), version("torch"), *self.flags()]
        parts += [str(self.nvcc), self.archs, *self.ldflags]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def make_recipe(cuda: str | None = None) -> Recipe:
    """The recipe for this environment.

    Raises:
        BuildError: no torch, no sources, or an option that makes no sense.
    """
    if sys.platform == "win32":
        raise BuildError("native kernels are built on Linux and macOS only")
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise BuildError("torch is not installed where the native kernels are built")
    archs = (os.environ.get("TORCH_CUDA_ARCH_LIST") or CUDA_ARCHS).replace(";", " ").replace(",", " ")
    return Recipe(
        csrc=find_csrc(),
        nvcc=find_cuda(cuda),
        archs=archs,
        torch=Path(spec.submodule_search_locations[0]),
        cxxflags=shlex.split(os.environ.get("CXXFLAGS", "")),
        ldflags=shlex.split(os.environ.get("LDFLAGS", "")),
    )


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    log = f"$ {shlex.join(command)}\n{done.stdout}"
    if done.returncode != 0:
        raise BuildError(f"{log}exit code {done.returncode}\n")
    return log


def build(recipe: Recipe, target: Path, objects: Path) -> str:
    """Compile and link to `target`, in place only when complete; returns the compilers' log.

    Args:
        recipe: what to build.
        target: the binary; its folder exists.
        objects: folder for object files; those whose source, headers and options are the same are used again.

    Raises:
        BuildError: no compiler, or a command failed; then the message is the full log.
    """
    objects.mkdir(parents=True, exist_ok=True)
    headers = b"".join(path.read_bytes() for path in sorted(recipe.csrc.rglob("*.h")))
    headers += version("torch").encode()

    def compile_one(source: Path) -> tuple[Path, str]:
        command = recipe.compile(source)
        options = "\0".join(command[:-1]).encode()
        key = hashlib.sha256(options + source.read_bytes() + headers).hexdigest()[:16]
        result = objects / f"{source.stem}-{key}.o"
        if result.is_file():
            return result, ""
        partial = result.with_suffix(f".{os.getpid()}.o")
        log = _run([*command, "-o", str(partial)])
        partial.replace(result)
        return result, log

    jobs = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)
    with ThreadPoolExecutor(jobs) as pool:
        compiled = list(pool.map(compile_one, recipe.files()))
    partial = target.with_suffix(f".{os.getpid()}.partial")
    paths = [str(path) for path, _ in compiled]
    log = _run([*find_cxx(), "-shared", *paths, *recipe.link_flags(), "-o", str(partial)])
    partial.replace(target)
    return "".join(text for _, text in compiled) + log


def cmake(recipe: Recipe) -> str:
    """The recipe as CMake commands."""

    def assign(name: str, values: Sequence[str | Path]) -> str:
        return f"set({name} {' '.join(f'[==[{value}]==]' for value in values)})\n"

    cpp = [path for path in recipe.files() if path.suffix == ".cpp"]
    text = assign("CFR_SOURCES", cpp)
    text += assign("CFR_CUDA_SOURCES", [path for path in recipe.files() if path.suffix == ".cu"])
    text += assign("CFR_INCLUDES", recipe.includes())
    text += assign("CFR_FLAGS", recipe.flags())
    text += assign("CFR_DEFINED_SOURCE", [recipe.csrc / "build_info.cpp"])
    text += assign("CFR_DEFINITIONS", recipe.definitions())
    text += assign("CFR_LINK_FLAGS", recipe.link_flags())
    text += assign("CFR_MODULE", [MODULE])
    if recipe.nvcc:
        text += assign("CFR_NVCC", [recipe.nvcc, *NVCC_FLAGS, *gencode(recipe.archs), "-c"])
    return text


if __name__ == "__main__":
    print(cmake(make_recipe()))
