"""Tables of points as PLY and PCD hold them: rows of text, or packed records."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[np.generic]]


def text_lines(data: bytes) -> list[str]:
    """The lines that are not blank.

    Raises:
        ValueError: the last line lacks its line break: it may be cut inside a number, which nothing
            else would show.
    """
    if not data.endswith((b"\n", b"\r")):
        raise ValueError("truncated, or no line break after the last row")
    return [line for line in data.decode("latin-1").splitlines() if line.strip()]


def text_columns(lines: list[str], start: int, count: int, names: list[str]) -> Columns:
    """`count` rows of numbers from `lines[start]` on, one float64 column [count] a name.

    Raises:
        ValueError: fewer rows, or another number of columns, than promised.
    """
    rows = lines[start : start + count]
    if len(rows) < count:
        raise ValueError(f"truncated: {len(rows)} of {count} rows")
    if count == 0:
        return {name: np.empty(0) for name in names}
    table = np.loadtxt(rows, dtype=np.float64, comments=None, ndmin=2)
    if table.shape[1] != len(names):
        raise ValueError(f"{table.shape[1]} columns where its header has {len(names)}")
    return dict(zip(names, table.T, strict=True))


def binary_columns(data: bytes, offset: int, count: int, dtype: np.dtype[np.void]) -> Columns:
    """`count` packed records of `dtype` from `offset` on, one column [count] a field.

    Raises:
        ValueError: the data end before.
    """
    needed, available = count * dtype.itemsize, len(data) - offset
    if needed > available:
        raise ValueError(f"truncated: {available} of {needed} bytes of records")
    table = np.frombuffer(data, dtype, count, offset)
    return {name: table[name] for name in dtype.names or ()}
