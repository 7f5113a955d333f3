"""Metres and millimetres, and the check that catches one taken for the other."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.files import PathLike
from cfr_fast.errors import InputError

Unit: TypeAlias = Literal["m", "mm"]

_FARTHEST = 20.0  # metres; nobody inspects parts from farther away


def require_unit(unit: object) -> None:
    """Raise InputError unless `unit` is "m" or "mm"."""
    if unit not in get_args(Unit):
        raise InputError("unit", "'m' or 'mm'", repr(unit))


def metres_per_unit(unit: Unit) -> float:
    """Factor that turns coordinates in `unit` into metres."""
    require_unit(unit)
    return 1.0 if unit == "m" else 0.001


def require_near(path: PathLike, distances: NDArray[np.floating], hint: str) -> None:
    """Raise InputError with `hint` when the median of `distances` [N] exceeds 20 m: a wrong unit."""
    if distances.size and (median := float(np.median(distances))) > _FARTHEST:
        raise InputError(
            str(path),
            f"points within {_FARTHEST:.0f} m of the camera",
            f"a median of {median:.6g} m ({hint})",
        )
