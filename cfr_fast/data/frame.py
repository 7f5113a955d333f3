"""The square view of a sample that extractors work on, and the way back to the input's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Frame:
    """A sample cut (optionally) to its object and padded to a square.

    Args:
        rgb: uint8 [L, L, 3]; padding repeats the edge.
        xyz: float32 [L, L, 3], metres; padding and missing points are zeros.
        top, left: where the sample's pixel (0, 0) would lie in the frame (negative when cut off).
        source_shape: height and width of the sample.
    """

    rgb: NDArray[np.uint8]
    xyz: NDArray[np.float32]
    top: int
    left: int
    source_shape: tuple[int, int]

    @property
    def side(self) -> int:
        """L, in pixels."""
        return int(self.rgb.shape[0])
