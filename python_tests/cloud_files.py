"""Point clouds in every form that the readers know, as bytes, for their tests."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
XYZ = RNG.uniform(0.2, 0.6, (6, 9, 3)).astype(np.float32)
XYZ[2, 3:5] = 0
DEPTH = RNG.integers(300, 900, (6, 9)).astype(np.uint16)


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def tiff_bytes(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def image_bytes(array: np.ndarray, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **options)
    return buffer.getvalue()


PLY_FORMATS = ("ascii", "binary_little_endian", "binary_big_endian")
PCD_FORMATS = ("ascii", "binary", "binary_compressed")


def ply_bytes(
    points: NDArray[np.float32], form: str, comments: tuple[str, ...] = (), extra: str = ""
) -> bytes:
    """A PLY of `points` [N, 3] with colours; `extra` adds header lines after the vertices."""
    header = ["ply", f"format {form} 1.0", *comments, f"element vertex {len(points)}"]
    header += [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green")]
    header += [extra] if extra else []
    head = "\n".join([*header, "end_header", ""]).encode()
    if form == "ascii":
        return head + b"".join(b"%.9g %.9g %.9g 7 8\n" % tuple(point) for point in points)
    order = "<" if "little" in form else ">"
    rows = np.zeros(len(points), [("xyz", order + "f4", 3), ("colour", "u1", 2)])
    rows["xyz"] = points
    return head + rows.tobytes()


def organized_ply(xyz: NDArray[np.float32], form: str) -> bytes:
    height, width = xyz.shape[:2]
    return ply_bytes(xyz.reshape(-1, 3), form, (f"obj_info num_cols {width}", f"obj_info num_rows {height}"))


def range_grid_ply(xyz: NDArray[np.float32], form: str) -> bytes:
    """Stanford's way: only the valid points, and a grid of lists of none or one index."""
    height, width = xyz.shape[:2]
    valid = (xyz != 0).any(axis=2).ravel()
    comments = (f"obj_info num_cols {width}", f"obj_info num_rows {height}")
    extra = f"element range_grid {height * width}\nproperty list uchar int vertex_indices"
    body = ply_bytes(xyz.reshape(-1, 3)[valid], form, comments, extra)
    index = np.cumsum(valid) - 1
    order = ">" if "big" in form else "<"
    cells = []
    for here, number in zip(valid, index, strict=True):
        if form == "ascii":
            cells.append(b"1 %d\n" % number if here else b"0\n")
        else:
            cells.append(struct.pack(order + "Bi", 1, number) if here else b"\0")
    return body + b"".join(cells)


def viewport_ply(xyz: NDArray[np.float32], form: str) -> bytes:
    """PCL's way: the image size as a camera element behind the vertices."""
    height, width = xyz.shape[:2]
    extra = "element camera 1\nproperty float k1\nproperty int viewportx\nproperty int viewporty"
    order = ">" if "big" in form else "<"
    camera = b"0 %d %d\n" % (width, height)
    if form != "ascii":
        camera = struct.pack(order + "fii", 0, width, height)
    return ply_bytes(xyz.reshape(-1, 3), form, (), extra) + camera


def pcd_bytes(xyz: NDArray[np.float32], form: str) -> bytes:
    """A PCD with a padding field, a normal of COUNT 3 and a colour; [H, W, 3] or [N, 3] points."""
    height, width = xyz.shape[:2] if xyz.ndim == 3 else (1, len(xyz))
    points = xyz.reshape(-1, 3)
    head = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z _ normal rgb\nSIZE 4 4 4 1 4 4\nTYPE F F F U F U\n"
        f"COUNT 1 1 1 4 3 1\nWIDTH {width}\nHEIGHT {height}\nVIEWPOINT 0 0 0 1 0 0 0\n"
        f"POINTS {len(points)}\nDATA {form}\n"
    ).encode()
    if form == "ascii":
        return head + b"".join(b"%.9g %.9g %.9g 0 0 0 0 1 2 3 255\n" % tuple(point) for point in points)
    columns = [points[:, 0], points[:, 1], points[:, 2]]
    columns += [np.zeros((len(points), 4), "u1"), np.ones((len(points), 3), "f4"), np.ones(len(points), "u4")]
    if form == "binary":
        return head + b"".join(
            b"".join(column[row].tobytes() for column in columns) for row in range(len(points))
        )
    raw = b"".join(column.tobytes() for column in columns)
    packed = lzf_compress(raw)
    return head + struct.pack("<II", len(packed), len(raw)) + packed


def lzf_compress(data: bytes) -> bytes:
    """Greedy LZF with a table of the last place of every three bytes."""
    out, literals, table, position = bytearray(), bytearray(), dict[bytes, int](), 0

    def flush() -> None:
        while literals:
            piece = literals[:32]
            out.append(len(piece) - 1)
            out.extend(piece)
            del literals[:32]

    while position < len(data):
        key = data[position : position + 3]
        start = table.get(key, -1)
        table[key] = position
        distance = position - start - 1
        if len(key) < 3 or start < 0 or distance >= 8192:
            literals.append(data[position])
            position += 1
            continue
        length = 3
        while (
            length < 264 and data[start + length : start + length + 1] == data[position + length :][:1] != b""
        ):
            length += 1
        flush()
        code = length - 2
        out.append((min(code, 7) << 5) | (distance >> 8))
        if code >= 7:
            out.append(code - 7)
        out.append(distance & 255)
        position += length
    flush()
    return bytes(out)


def save(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


CLOUDS: dict[str, tuple[str, bytes]] = {
    "tiff": ("a.tiff", tiff_bytes(XYZ, photometric="rgb")),
    "tiff_rows": ("a.tif", tiff_bytes(XYZ, photometric="rgb", rowsperstrip=1)),
    "tiff_deflate": ("a.tiff", tiff_bytes(XYZ, photometric="rgb", compression="zlib", rowsperstrip=2)),
    "npy": ("a.npy", npy_bytes(XYZ)),
    "npy_float64": ("a.npy", npy_bytes(XYZ.astype(np.float64))),
    "npy_fortran": ("a.npy", npy_bytes(np.asfortranarray(XYZ))),
    **{f"ply_{form}": ("a.ply", organized_ply(XYZ, form)) for form in PLY_FORMATS},
    **{f"grid_{form}": ("a.ply", range_grid_ply(XYZ, form)) for form in PLY_FORMATS},
    **{f"viewport_{form}": ("a.ply", viewport_ply(XYZ, form)) for form in PLY_FORMATS},
    **{f"pcd_{form}": ("a.pcd", pcd_bytes(XYZ, form)) for form in PCD_FORMATS},
}
