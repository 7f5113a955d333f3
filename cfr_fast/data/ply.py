"""Point clouds in PLY files: ascii and binary, organized in any of the ways that PLY knows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cfr_fast.data.files import PathLike, reading, require_plausible_size
from cfr_fast.data.records import Columns, binary_columns, text_columns, text_lines

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_SIZE_LINE = re.compile(r"(num_cols|width|num_rows|height)\s*[:=]?\s*(\d{1,9})", re.IGNORECASE)
_HEADER_LIMIT = 2**16


@dataclass
class _Element:
    name: str
    count: int
    scalars: list[tuple[str, str]] = field(default_factory=list)
    lists: list[tuple[str, str]] = field(default_factory=list)
    """Types of the length and of the items, for each list property."""


@dataclass
class _Header:
    order: str
    elements: list[_Element]
    size: dict[str, int]
    """"height" and "width", where comments give them."""
    length: int


def read_ply(path: PathLike) -> NDArray[np.float64]:
    """Read the x, y, z of the vertices; other properties (colours, normals) are passed over.

    A cloud is organized when comment or obj_info lines give ``num_cols`` and ``num_rows`` (or ``width`` and
    ``height``) and either a ``range_grid`` element places the vertices (Stanford's and PCL's way) or there
    are as many vertices as pixels; or when a ``camera`` element's viewport matches (PCL's other way).

    Returns:
        float64 [H, W, 3] where organized (zeros where the grid is empty), else [N, 3]; in the file's unit.

    Raises:
        InputError: missing, corrupt or truncated file, or a size beyond reason.
    """
    with reading(path, "PLY"):
        data = Path(path).read_bytes()
        header = _parse_header(data)
        tables = _read_elements(data, header)
        vertices = tables["vertex"]
        xyz = np.stack([vertices[axis].astype(np.float64) for axis in "xyz"], axis=1)
        height, width = header.size.get("height", 0), header.size.get("width", 0)
        if "range_grid" in tables:
            return _place(path, xyz, tables["range_grid"]["list"], height, width)
        if "camera" in tables and "viewportx" in tables["camera"]:
            width, height = (int(tables["camera"][f"viewport{axis}"][0]) for axis in "xy")
        if height > 1 and width > 1 and height * width == len(xyz):
            return xyz.reshape(height, width, 3)
        return xyz


def _parse_header(data: bytes) -> _Header:
    end = re.search(rb"\nend_header\r?\n", data[:_HEADER_LIMIT])
    if not data.startswith(b"ply") or end is None:
        raise ValueError("no PLY header")
    order, elements, size = None, list[_Element](), dict[str, int]()
    for line in data[: end.start()].decode("latin-1").splitlines()[1:]:
        keyword, _, rest = line.strip().partition(" ")
        words = rest.split()
        if keyword == "format":
            order = _ORDERS[words[0]]
        elif keyword in ("comment", "obj_info"):
            if match := _SIZE_LINE.fullmatch(rest.strip()):
                side = "width" if match[1].lower() in ("num_cols", "width") else "height"
                size[side] = int(match[2])
        elif keyword == "element":
            elements.append(_Element(words[0], int(words[1])))
        elif keyword == "property" and words[0] == "list":
            elements[-1].lists.append((_TYPES[words[1]], _TYPES[words[2]]))
        elif keyword == "property":
            elements[-1].scalars.append((words[1], _TYPES[words[0]]))
    names = {element.name: [name for name, _ in element.scalars] for element in elements}
    if order is None or not set("xyz") <= set(names.get("vertex", ())):
        raise ValueError("no format, or no vertices with x, y and z, in its header")
    if any(element.count < 0 for element in elements):
        raise ValueError("a negative number of elements")
    return _Header(order, elements, size, end.end())


def _read_elements(data: bytes, header: _Header) -> dict[str, Columns]:
    """Columns of every element up to the last one of interest; a list's first items are column "list"."""
    wanted = {"vertex", "range_grid", "camera"}
    last = max(index for index, element in enumerate(header.elements) if element.name in wanted)
    elements = header.elements[: last + 1]
    for element in elements:
        if (element.lists and element.scalars) or len(element.lists) > 1:
            raise ValueError(f"element {element.name} mixes lists with other properties")
    if header.order == "":
        return _text_elements(text_lines(data[header.length :]), elements)
    return _binary_elements(data, header.length, elements, header.order)


def _text_elements(lines: list[str], elements: list[_Element]) -> dict[str, Columns]:
    tables: dict[str, Columns] = {}
    start = 0
    for element in elements:
        if element.lists:
            rows = lines[start : start + element.count]
            if len(rows) < element.count:
                raise ValueError(f"truncated: {len(rows)} of {element.count} rows of {element.name}")
            items = [[int(word) for word in row.split()[:2]] for row in rows]
            tables[element.name] = {"list": _first_items(items)}
        else:
            names = [name for name, _ in element.scalars]
            tables[element.name] = text_columns(lines, start, element.count, names)
        start += element.count
    return tables


def _binary_elements(data: bytes, offset: int, elements: list[_Element], order: str) -> dict[str, Columns]:
    tables: dict[str, Columns] = {}
    for element in elements:
        if element.lists:
            column, offset = _binary_lists(data, offset, element, order)
            tables[element.name] = {"list": column}
        else:
            dtype = np.dtype([(name, order + kind) for name, kind in element.scalars])
            tables[element.name] = binary_columns(data, offset, element.count, dtype)
            offset += element.count * dtype.itemsize
    return tables


def _binary_lists(data: bytes, offset: int, element: _Element, order: str) -> tuple[NDArray[np.int64], int]:
    length_type, item_type = (np.dtype(order + kind) for kind in element.lists[0])
    if "f" in (length_type.kind, item_type.kind):
        raise ValueError(f"lists of {element.name} of other than whole numbers")
    byte_order: Literal["little", "big"] = "little" if order == "<" else "big"
    step, size, signed = length_type.itemsize, item_type.itemsize, length_type.kind == "i"
    starts = []  # numpy is slow with numbers one by one
    for _ in range(element.count):
        length = int.from_bytes(data[offset : offset + step], byte_order, signed=signed)
        if length < 0:
            raise ValueError("a list of negative length")
        starts.append(offset + step if length else -1)
        offset += step + length * size
        if offset > len(data):
            raise ValueError(f"truncated inside the lists of {element.name}")
    start = np.array(starts, dtype=np.int64)
    column = np.full(len(start), -1, dtype=np.int64)
    filled = start >= 0
    items = np.frombuffer(data, np.uint8)[start[filled, None] + np.arange(size)]
    column[filled] = items.view(item_type)[:, 0]
    return column, offset


def _first_items(rows: list[list[int]]) -> NDArray[np.int64]:
    """First item of every list [count], -1 where it is empty."""
    return np.array([row[1] if row[0] > 0 else -1 for row in rows], dtype=np.int64)


def _place(
    path: PathLike, xyz: NDArray[np.float64], grid: NDArray[np.generic], height: int, width: int
) -> NDArray[np.float64]:
    require_plausible_size(path, height, width)
    index = grid.astype(np.int64)
    if len(index) != height * width or index.max() >= len(xyz):
        raise ValueError("its range_grid does not fit num_cols, num_rows and the vertices")
    organized = np.zeros((height * width, 3))
    organized[index >= 0] = xyz[index[index >= 0]]
    return organized.reshape(height, width, 3)
