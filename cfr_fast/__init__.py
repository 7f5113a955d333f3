"""Few-shot RGB + 3D anomaly detection with the Crossmodal Feature Replacer (CFR)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cfr_fast.errors import CFRError, InputError, NotFittedError, OutputError

if TYPE_CHECKING:
    from cfr_fast.data import Sample
    from cfr_fast.model import CFR
    from cfr_fast.result import Result

__version__ = "0.1.0"
__all__ = [
    "CFR",
    "CFRError",
    "InputError",
    "NotFittedError",
    "OutputError",
    "Result",
    "Sample",
    "__version__",
]

_ROOMS = {"CFR": "cfr_fast.model", "Result": "cfr_fast.result", "Sample": "cfr_fast.data"}


def __getattr__(name: str) -> Any:
    """Import the heavy rooms when they are first asked for: ``cfr --help`` needs none of them."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_ROOMS[name]), name)
