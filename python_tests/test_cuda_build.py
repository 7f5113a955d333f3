"""What the CUDA kernels compile to, and with which options; no device is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cuda_registers
import pytest
from cuda_registers import MARGIN, Usage, complaints

from cfr_fast.ops import _build

SPACE = "_ZN3cfr4cuda57_GLOBAL__N__67fa75b9_4_x_cu_d6ad945"
PASS, DECODE = f"{SPACE}14passILi8E6float4EEvPf", f"{SPACE}16decodeElPy"
LOG = f"""\
ptxas info    : Compiling entry function '{PASS}' for 'sm_80'
ptxas info    : Function properties for {PASS}
    8 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 64 bytes smem
ptxas info    : Compiling entry function '{DECODE}' for 'sm_90a'
ptxas info    : Function properties for {DECODE}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""


def test_every_kernel_fits_its_registers() -> None:
    if _build.find_cuda("auto") is None:
        pytest.skip("no nvcc here")
    nvcc, table = cuda_registers.read_table()
    assert complaints(cuda_registers.measure(), table, nvcc == cuda_registers.release()) == []


def test_reports_are_read_right() -> None:
    names = ["x.cu pass<8, float4> sm_80", "x.cu decode sm_90a"]
    assert cuda_registers.parse("x.cu", LOG) == dict(
        zip(names, [Usage(40, 64, 20), Usage(8, 0, 0)], strict=True)
    )


@pytest.mark.parametrize(
    ("usage", "same_release", "complaint"),
    [
        (Usage(40 + MARGIN, 64, 0), True, ""),
        (Usage(20, 0, 0), True, ""),
        (Usage(41 + MARGIN, 64, 0), True, "registers"),
        (Usage(40, 65, 0), True, "shared memory"),
        (Usage(255, 65, 0), False, ""),
        (Usage(40, 64, 4), False, "spills 4 bytes"),
    ],
)
def test_what_is_complained_about(usage: Usage, same_release: bool, complaint: str) -> None:
    lines = complaints({"a": usage}, {"a": Usage(40, 64, 0)}, same_release)
    assert len(lines) == bool(complaint)
    assert complaint in "".join(lines)


def test_new_and_vanished_kernels_are_named() -> None:
    one = Usage(40, 64, 0)
    new, gone = complaints({"new": one}, {"gone": one}, True), complaints({}, {"gone": one}, True)
    assert "gone: in the table, but not in csrc/cuda" in gone[0]
    assert "new: not in the table" in new[1]


def test_no_option_trades_exactness_for_speed() -> None:
    recipe = replace(_build.make_recipe(cuda="0"), nvcc=Path("nvcc"))
    commands = [recipe.compile(source) for source in recipe.files() if source.suffix == ".cu"]
    commands += [[*_build.CXX_FLAGS], [*_build.NVCC_FLAGS]]
    assert len(commands) > 2
    for option in (part for command in commands for part in command):
        assert not any(
            word in option for word in ("fast_math", "fast-math", "Ofast", "ftz=true", "prec-div=false")
        )
