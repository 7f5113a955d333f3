"""Makes `import timm` work where torchvision was built for another torch.

timm imports torchvision, and torchvision registers fake kernels for two operators that only its own
compiled library defines. Where that library does not load (a CPU-only torch beside a torchvision from
another build is the usual case) the import ends with "operator torchvision::nms does not exist", although
timm's networks need neither. Declaring the two schemas, without any kernel, is all that is missing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

from cfr_fast.errors import InputError

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_library: torch.library.Library | None = None  # schemas live as long as the object that declared them


def import_timm() -> ModuleType:
    """The module timm, imported in spite of a torchvision that does not match torch.

    Raises:
        InputError: timm is not installed.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass  # timm says what it lacks
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declare_missing_schemas()
        for name in [name for name in sys.modules if name.split(".")[0] in ("torchvision", "timm")]:
            del sys.modules[name]  # what the failed import left behind
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise InputError(
            "extractor", "timm to be installed: pip install cfr-fast[timm]", str(error)
        ) from error


def _declare_missing_schemas() -> None:
    global _library
    missing = [schema for name, schema in _SCHEMAS.items() if not hasattr(torch.ops.torchvision, name)]
    if missing and _library is None:
        _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in missing:
            _library.define(schema)  # type: ignore[no-untyped-call]
