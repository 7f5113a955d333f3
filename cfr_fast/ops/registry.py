"""How an op with a native kernel is known to torch: schema, fake implementation, gradient and fallback.

A further op takes its schema and checks in `csrc/ops.cpp`; kernels in `csrc/cpu/<op>.cpp` and
`csrc/cuda/<op>.cu`, declared in `csrc/kernels.h`; its definition in `reference.py`; and
`cfr_fast/ops/<op>.py` with the public function and one `NativeOp` in `OPS`. The build recipe finds new files
by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

NAMESPACE = "cfr_fast"
Function = Callable[..., Any]


@dataclass(frozen=True)
class NativeOp:
    """One op of `torch.ops.cfr_fast`.

    The native library brings its schema and its kernels: `name` for the CPU and, when built with CUDA,
    `<name>_cuda` with the stream as a further argument. Where a kernel is missing, `reference` serves; its
    signature equals the schema.

    Attributes:
        name: the same in schema, C++ files, reference, test and benchmark.
        reference: the plain PyTorch definition.
        fake: shapes and dtypes of the results for torch.compile.
        setup_context: what the gradient needs, as torch.library.register_autograd takes it; None, like
            `backward`, for an op without gradient, whose public function detaches its arguments.
        backward: the gradient.
        public: whether a public function bears its name; False for what a gradient alone calls.
    """

    name: str
    reference: Function
    fake: Function
    setup_context: Function | None = None
    backward: Function | None = None
    public: bool = True

    def schema(self) -> str:
        """Arguments and results, as the native library declares them too."""
        return torch.library.infer_schema(self.reference, mutates_args=()).replace("SymInt", "int")


OPS: list[NativeOp] = []


def has_cuda_kernel(name: str) -> bool:
    """Whether the loaded library brings a CUDA kernel of this op."""
    return hasattr(torch.ops.cfr_fast, f"{name}_cuda")


def _cuda_kernel(name: str) -> Function:
    kernel = getattr(torch.ops.cfr_fast, f"{name}_cuda").default
    defaults = [
        argument.default_value for argument in getattr(torch.ops.cfr_fast, name).default._schema.arguments
    ]

    def launch(*arguments: Any) -> Any:
        device = next(item.device for item in arguments if isinstance(item, torch.Tensor))
        missing = defaults[len(arguments) :]  # torch leaves out last arguments that equal their defaults
        return kernel(*arguments, *missing, torch.cuda.current_stream(device).cuda_stream)

    return launch


def register_all(native: bool, cuda: bool) -> None:
    """Tell torch about every op, once per process.

    Args:
        native: the native library is loaded, so the schemas exist and the CPU has kernels.
        cuda: it has CUDA kernels too, of some ops at least.
    """
    for op in OPS:
        qualified = f"{NAMESPACE}::{op.name}"
        if not native:
            torch.library.define(qualified, op.schema())
        torch.library.impl(qualified, "default", op.reference)  # every device without a kernel of its own
        if cuda and has_cuda_kernel(op.name):
            torch.library.impl(qualified, "cuda", _cuda_kernel(op.name))
        torch.library.register_fake(qualified, op.fake)
        if op.backward is not None:
            torch.library.register_autograd(qualified, op.backward, setup_context=op.setup_context)
