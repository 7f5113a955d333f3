"""Which points of a cloud were measured; a reduction over three columns would take ten times as long."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def measured(points: NDArray[Any]) -> NDArray[np.bool_]:
    """Points with any coordinate other than zero: [..., 3] → bool [...]."""
    return _any_axis(points != 0)


def not_a_number(points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Points with any coordinate NaN: [..., 3] → bool [...]."""
    return _any_axis(np.isnan(points))


def _any_axis(found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    either: NDArray[np.bool_] = found[..., 0] | found[..., 1] | found[..., 2]
    return either
