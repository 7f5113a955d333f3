"""Point clouds in PCD files (version 0.7): ascii, binary and binary_compressed."""

from __future__ import annotations

import re
import struct
from itertools import count as counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.files import PathLike, reading, require_plausible_size
from cfr_fast.data.records import Columns, binary_columns, text_columns, text_lines

_HEADER_LIMIT = 2**16
_KINDS = {"I": "i", "U": "u", "F": "f"}


def read_pcd(path: PathLike) -> NDArray[np.float64]:
    """Read the fields x, y, z; others (colours, normals) and the viewpoint are passed over.

    Returns:
        float64 [HEIGHT, WIDTH, 3] where HEIGHT and WIDTH exceed 1, else [N, 3]; in the file's unit, NaN where
        nothing was measured.

    Raises:
        InputError: missing, corrupt or truncated file, or a size beyond reason.
    """
    with reading(path, "PCD"):
        data = Path(path).read_bytes()
        header, start = _parse_header(data)
        width, height = int(header["WIDTH"][0]), int(header["HEIGHT"][0])
        require_plausible_size(path, height, width)
        points = int(header.get("POINTS", [str(width * height)])[0])
        if points != width * height:
            raise ValueError(f"{points} points where its header has {height}×{width}")
        dtype = _record_type(header)
        columns = _READERS[header["DATA"][0]](data, start, points, dtype)
        xyz = np.stack([columns[axis].astype(np.float64).reshape(points) for axis in "xyz"], axis=1)
        return xyz.reshape(height, width, 3) if height > 1 and width > 1 else xyz


def _parse_header(data: bytes) -> tuple[dict[str, list[str]], int]:
    end = re.search(rb"(?:^|\n)DATA\s+\w+\s*?\r?\n", data[:_HEADER_LIMIT])
    if end is None:
        raise ValueError("no PCD header")
    lines = data[: end.end()].decode("latin-1").splitlines()
    words = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return {keyword: values for keyword, *values in words}, end.end()


def _record_type(header: dict[str, list[str]]) -> np.dtype[np.void]:
    names = header["FIELDS"]
    counts = header.get("COUNT", ["1"] * len(names))
    # Padding fields are all called "_"; numpy wants different names.
    unique = [f"_{number}" if name == "_" else name for name, number in zip(names, counter(), strict=False)]
    fields = zip(unique, header["TYPE"], header["SIZE"], counts, strict=True)
    return np.dtype([(name, f"<{_KINDS[kind]}{size}", (int(count),)) for name, kind, size, count in fields])


def _read_text(data: bytes, start: int, points: int, dtype: np.dtype[np.void]) -> Columns:
    names = [
        name if index == 0 else f"{name}[{index}]"
        for name in dtype.names or ()
        for index in range(dtype[name].shape[0])
    ]
    return text_columns(text_lines(data[start:]), 0, points, names)


def _read_compressed(data: bytes, start: int, points: int, dtype: np.dtype[np.void]) -> Columns:
    """LZF-packed, field after field instead of point after point."""
    packed, size = struct.unpack_from("<II", data, start)
    body = data[start + 8 : start + 8 + packed]
    if len(body) < packed or size != points * dtype.itemsize:
        raise ValueError("truncated, or of another size than its header has")
    unpacked = lzf_decompress(body, size)
    columns: Columns = {}
    offset = 0
    for name in dtype.names or ():
        column = np.dtype([(name, dtype[name])])
        columns |= binary_columns(unpacked, offset, points, column)
        offset += points * column.itemsize
    return columns


_READERS = {"ascii": _read_text, "binary": binary_columns, "binary_compressed": _read_compressed}


def lzf_decompress(data: bytes, size: int) -> bytes:
    """Undo LZF: runs of up to 32 literal bytes, and references up to 8 KiB back.

    Raises:
        ValueError: anything but exactly `size` bytes come out.
    """
    out = bytearray()
    position = 0
    while position < len(data) and len(out) <= size:
        control = data[position]
        position += 1
        if control < 32:
            out += data[position : position + control + 1]
            position += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[position]
            position += 1
        length += 2
        start = len(out) - ((control & 31) << 8) - data[position] - 1
        position += 1
        if start < 0:
            raise ValueError("corrupt compression")
        # A reference may reach into what it is itself writing: the piece repeats.
        piece = out[start : start + length]
        out += (piece * (length // len(piece) + 1))[:length]
    if len(out) != size:
        raise ValueError(f"truncated: {len(out)} of {size} bytes after decompression")
    return bytes(out)
