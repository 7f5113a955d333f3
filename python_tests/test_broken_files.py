"""Truncated, corrupt and absurd files: one clear line, never a foreign traceback."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cloud_files import (
    CLOUDS,
    DEPTH,
    RGB,
    XYZ,
    image_bytes,
    npy_bytes,
    organized_ply,
    pcd_bytes,
    range_grid_ply,
    save,
    tiff_bytes,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfr_fast.data import read_camera, read_depth, read_mask, read_rgb, read_xyz
from cfr_fast.errors import InputError

READERS: dict[str, tuple[str, bytes, Callable[[Path], np.ndarray]]] = {
    **{name: (*file, read_xyz) for name, file in CLOUDS.items()},
    "png": ("a.png", image_bytes(RGB, "PNG"), read_rgb),
    "bmp": ("a.bmp", image_bytes(RGB, "BMP"), read_rgb),
    "jpg": ("a.jpg", image_bytes(np.kron(RGB, np.ones((8, 8, 1), np.uint8)), "JPEG"), read_rgb),
    "rgb_tiff": ("a.tiff", image_bytes(RGB, "TIFF"), read_rgb),
    "mask": ("a.png", image_bytes(RGB[..., 0], "PNG"), read_mask),
    "depth_png": ("a.png", image_bytes(DEPTH, "PNG"), read_depth),
    "depth_tiff": ("a.tiff", tiff_bytes(DEPTH.astype(np.float32) / 1000), read_depth),
    "depth_npy": ("a.npy", npy_bytes(DEPTH), read_depth),
}

# Pillow warns of broken tags before it raises.
quiet = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
few = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


def attempt(read: Callable[[Path], np.ndarray], path: Path) -> np.ndarray | None:
    """What `read` returns; None where it refuses the file in one line that names it."""
    try:
        return read(path)
    except InputError as error:
        message = str(error)
    assert path.name in message
    assert "\n" not in message
    return None


@quiet
@pytest.mark.parametrize("name", READERS)
@few
@given(data=st.data())
def test_a_truncated_file_is_refused_or_whole(name: str, data: st.DataObject, tmp_path: Path) -> None:
    file, content, read = READERS[name]
    whole = read(save(tmp_path / file, content))
    length = data.draw(st.integers(0, len(content) - 1))
    part = attempt(read, save(tmp_path / file, content[:length]))
    if part is not None:
        np.testing.assert_array_equal(part, whole)


@quiet
@pytest.mark.parametrize("name", READERS)
@few
@given(data=st.data())
def test_corrupt_bytes_raise_nothing_foreign(name: str, data: st.DataObject, tmp_path: Path) -> None:
    file, content, read = READERS[name]
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        # Headers, where corruption does most, are at the start.
        place = data.draw(st.integers(0, min(len(content) - 1, 300)) | st.integers(0, len(content) - 1))
        changed[place] = data.draw(st.integers(0, 255))
    attempt(read, save(tmp_path / file, bytes(changed)))


@pytest.mark.parametrize("read", [read_rgb, read_mask, read_xyz, read_depth, read_camera])
@pytest.mark.parametrize("file", ["a.png", "a.npy", "a.ply", "a.pcd", "a.tiff", "a.json"])
def test_missing_files_folders_and_garbage(read: Callable, file: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=file):
        read(tmp_path / file)
    (tmp_path / "folder" / file).mkdir(parents=True)
    with pytest.raises(InputError, match=file):
        read(tmp_path / "folder" / file)
    for content in (b"", b"nothing of the kind", b"ply\n", b"\x93NUMPY", b"II*\0"):
        with pytest.raises(InputError, match=file):
            read(save(tmp_path / file, content))


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("a.npy", npy_bytes(XYZ).replace(b"(6, 9, 3)", b"(60000, 90000, 3)").replace(b" " * 10, b"", 1)),
        ("a.ply", organized_ply(XYZ, "binary_little_endian").replace(b"vertex 54", b"vertex 999999999999")),
        ("a.ply", organized_ply(XYZ, "ascii").replace(b"vertex 54", b"vertex 99999999999")),
        ("a.ply", organized_ply(XYZ, "binary_little_endian").replace(b"vertex 54", b"vertex -1")),
        ("a.ply", range_grid_ply(XYZ, "binary_big_endian").replace(b"grid 54", b"grid 99999999999")),
        (
            "a.pcd",
            pcd_bytes(XYZ, "binary").replace(b"WIDTH 9", b"WIDTH 900000").replace(b"S 54", b"S 5400000"),
        ),
        ("a.pcd", pcd_bytes(XYZ, "binary").replace(b"HEIGHT 6", b"HEIGHT -6")),
        (
            "a.pcd",
            pcd_bytes(XYZ, "binary_compressed").replace(b"COUNT 1 1 1 4 3", b"COUNT 1 1 1 4 999999999"),
        ),
    ],
)
def test_absurd_headers_are_refused_before_allocation(file: str, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=file):
        read_xyz(save(tmp_path / file, data))


def test_absurd_image_sizes_are_refused(tmp_path: Path) -> None:
    png = bytearray(image_bytes(RGB, "PNG"))
    png[16:24] = struct.pack(">II", 30000, 30000)
    path = save(tmp_path / "a.png", bytes(png))
    with pytest.raises(InputError, match=r"a\.png"):
        read_rgb(path)


@pytest.mark.parametrize("rows", [7, 60000])
def test_rows_without_data_are_not_taken_for_missing_points(rows: int, tmp_path: Path) -> None:
    tiff = io.BytesIO(tiff_bytes(XYZ, photometric="rgb", rowsperstrip=1))
    with tifffile.TiffFile(tiff) as file:
        place = file.pages.first.tags["ImageLength"].valueoffset
    data = bytearray(tiff.getvalue())
    data[place : place + 2] = struct.pack("<H", rows)
    with pytest.raises(InputError, match=r"a\.tiff"):
        read_xyz(save(tmp_path / "a.tiff", bytes(data)))


def test_corrupt_tiffs_log_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    data = tiff_bytes(XYZ, photometric="rgb")
    for length in (10, 200, 250):
        with pytest.raises(InputError, match=r"a\.tiff"):
            read_xyz(save(tmp_path / "a.tiff", data[:length]))
    assert capsys.readouterr() == ("", "")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{"a": 1}, None]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy"):
        read_xyz(tmp_path / "a.npy")
    with open(tmp_path / "b.npy", "wb") as file:
        np.savez(file, a=XYZ)
    with pytest.raises(InputError, match=r"one array"):
        read_xyz(tmp_path / "b.npy")


@pytest.mark.parametrize("array", [XYZ[..., :2], XYZ[..., 0], XYZ.astype(np.complex64), XYZ.astype(np.uint8)])
def test_clouds_of_other_shapes_and_dtypes(array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.npy.*\[H, W, 3\]"):
        read_xyz(save(tmp_path / "a.npy", npy_bytes(array)))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_infinite_points_are_refused(value: float, tmp_path: Path) -> None:
    xyz = XYZ.astype(np.float64)
    xyz[0, 0, 0] = value
    with pytest.raises(InputError, match=r"a\.npy.*finite"):
        read_xyz(save(tmp_path / "a.npy", npy_bytes(xyz)))
