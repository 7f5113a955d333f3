"""Builds the native library ahead of time with the recipe of cfr_fast/ops/_build.py.

`CFR_FAST_BUILD=0` leaves it out: the package then compiles at first use from the sources it carries. Without
a C++ compiler that happens by itself, unless `CFR_FAST_BUILD=1` asks for the binary.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "cfr_fast" / "ops"))  # the recipe alone: the package needs more than torch
from _build import BuildError, build, find_cxx, make_recipe  # noqa: E402

sys.path.pop(0)


class BuildNative(build_ext):
    """Compiles the one extension with the shared recipe."""

    def build_extension(self, ext):
        """Put the binary where setuptools expects it."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        print(build(make_recipe(), target, Path(self.build_temp)))


def extensions():
    """The native library, or nothing when it is not wanted or cannot be built."""
    wanted = os.environ.get("CFR_FAST_BUILD", "auto")
    if wanted == "0":
        return []
    try:
        make_recipe()
        find_cxx()
    except BuildError as error:
        if wanted == "1":
            raise
        print(f"cfr_fast: no native library in this build: {error}", file=sys.stderr)
        return []
    return [Extension("cfr_fast._native", sources=[])]


setup(
    packages=[*find_packages(include=["cfr_fast", "cfr_fast.*"]), "cfr_fast.csrc"],
    package_dir={"cfr_fast.csrc": "csrc"},
    package_data={
        "cfr_fast": ["py.typed"],
        "cfr_fast.csrc": ["*", "cpu/*", "cuda/*", "evaluation/*"],
        "cfr_fast.extractors": ["*.safetensors"],
        "cfr_fast.report": ["assets/*"],
    },
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildNative},
)
