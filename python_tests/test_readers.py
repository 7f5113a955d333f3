"""Every format read back, and what the numbers in it mean."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cloud_files import (
    CLOUDS,
    DEPTH,
    PCD_FORMATS,
    PLY_FORMATS,
    RGB,
    XYZ,
    image_bytes,
    npy_bytes,
    pcd_bytes,
    ply_bytes,
    save,
    tiff_bytes,
)
from PIL import Image

from cfr_fast.data import (
    Camera,
    depth_to_xyz,
    project_points,
    read_camera,
    read_depth,
    read_mask,
    read_rgb,
    read_xyz,
    write_mask,
    write_rgb,
    write_xyz,
)
from cfr_fast.data.images import read_uint16
from cfr_fast.errors import InputError, OutputError

CAMERA = Camera(10.0, 12.0, 4.0, 2.5, 9, 6)


# --- whole files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLOUDS)
def test_every_cloud_format_gives_the_same_points(name: str, tmp_path: Path) -> None:
    file, data = CLOUDS[name]
    xyz = read_xyz(save(tmp_path / file, data))
    assert xyz.dtype == np.float32
    np.testing.assert_array_equal(xyz, XYZ)


@pytest.mark.parametrize("form", PCD_FORMATS)
def test_nan_means_missing(form: str, tmp_path: Path) -> None:
    xyz = np.where((XYZ == 0).all(axis=2, keepdims=True), np.float32(np.nan), XYZ)
    xyz[0, 0, 1] = np.nan
    read = read_xyz(save(tmp_path / "a.pcd", pcd_bytes(xyz, form)))
    assert not read[0, 0].any()
    np.testing.assert_array_equal(read.any(axis=2), np.isfinite(xyz).all(axis=2))


@pytest.mark.parametrize("factor", [1000, 50])
def test_millimetres_are_recognised_and_converted(factor: int, tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy", npy_bytes(XYZ * factor))
    if factor == 1000:
        with pytest.raises(InputError, match=r"a\.npy.*unit='mm'"):
            read_xyz(path)
    np.testing.assert_allclose(read_xyz(path, "mm"), XYZ * factor / 1000, rtol=1e-6)


def test_write_xyz_reads_back_and_is_a_plain_float_tiff(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.tiff"
    write_xyz(path, XYZ)
    np.testing.assert_array_equal(read_xyz(path), XYZ)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        assert (page.compression, page.photometric, page.dtype) == (1, 2, np.float32)
    first = path.read_bytes()
    write_xyz(path, XYZ)
    assert path.read_bytes() == first
    assert [child.name for child in path.parent.iterdir()] == ["a.tiff"]


def test_write_rgb_and_mask_read_back(tmp_path: Path) -> None:
    write_rgb(tmp_path / "a.png", RGB)
    write_mask(tmp_path / "b.png", RGB[..., 0] > 100)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), RGB)
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png"), RGB[..., 0] > 100)


@pytest.mark.parametrize("write", [lambda p: write_rgb(p, RGB), lambda p: write_mask(p, RGB[..., 0] > 9)])
def test_unwritable_place_is_an_output_error(write: Callable[[Path], None], tmp_path: Path) -> None:
    save(tmp_path / "file", b"")
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "file" / "a.png")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(OutputError, match=r"taken\.png"):
        write(tmp_path / "taken.png")
    assert sorted(child.name for child in tmp_path.iterdir()) == ["file", "taken.png"]


# --- images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (RGB[..., 0], np.repeat(RGB[..., :1], 3, axis=2)),
        (np.dstack((RGB, RGB[..., 0])), RGB),
        (np.ascontiguousarray(RGB[..., :2]), np.repeat(RGB[..., :1], 3, axis=2)),
    ],
    ids=["grey", "alpha", "grey_alpha"],
)
def test_grey_is_repeated_and_alpha_dropped(pixels: np.ndarray, expected: np.ndarray, tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "a.png", image_bytes(pixels, "PNG"))), expected)


def test_sixteen_bit_colours_keep_their_upper_half(tmp_path: Path) -> None:
    wide = RGB.astype(np.uint16) * 256 + 77
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    png = b"\x89PNG\r\n\x1a\n"
    for name, content in (
        (b"IHDR", struct.pack(">IIBBBBB", 9, 6, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ):
        png += (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )
    for file, data in (("a.png", png), ("a.tiff", tiff_bytes(wide, photometric="rgb"))):
        np.testing.assert_array_equal(read_rgb(save(tmp_path / file, data)), RGB)


def test_depth_is_no_photo_and_a_photo_no_depth(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png.*depth"):
        read_rgb(save(tmp_path / "a.png", image_bytes(DEPTH, "PNG")))
    with pytest.raises(InputError, match=r"b\.png.*16-bit"):
        read_depth(save(tmp_path / "b.png", image_bytes(RGB, "PNG")))
    with pytest.raises(InputError, match=r"c\.tiff"):
        read_xyz(save(tmp_path / "c.tiff", tiff_bytes(RGB)))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_refused(form: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / f"a.{form.lower()}", image_bytes(RGB, form, exif=exif))
    with pytest.raises(InputError, match="EXIF orientation 6"):
        read_rgb(path)


def test_any_nonzero_class_is_a_defect(tmp_path: Path) -> None:
    mask = np.zeros((6, 9), np.uint8)
    mask[1, 1], mask[2, 2] = 1, 255
    palette = Image.fromarray(mask).convert("P")
    palette.save(tmp_path / "p.png")
    colour = np.dstack((mask, mask * 0, mask * 0, mask * 0 + 255))
    for path in (
        save(tmp_path / "a.png", image_bytes(mask, "PNG")),
        save(tmp_path / "c.png", image_bytes(colour, "PNG")),
        tmp_path / "p.png",
    ):
        np.testing.assert_array_equal(read_mask(path), mask > 0)


def test_uint16_reads_all_bits(tmp_path: Path) -> None:
    values = np.array([[0, 1, 255], [256, 32768, 65535]], dtype=np.uint16)
    read = read_uint16(save(tmp_path / "a.png", image_bytes(values, "PNG")))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, values)


# --- depth and camera --------------------------------------------------------------------------------------


def test_depth_becomes_points_that_project_back() -> None:
    depth = DEPTH.astype(np.float32) / 1000
    depth[0, :4] = (0, np.nan, np.inf, -1)
    xyz = depth_to_xyz(depth, CAMERA)
    assert xyz.dtype == np.float32
    assert not xyz[0, :4].any()
    np.testing.assert_allclose(xyz[3, 7], depth[3, 7] * np.array([3 / 10, 0.5 / 12, 1]), rtol=1e-6)
    valid = xyz[..., 2] > 0
    shuffled = np.random.default_rng(1).permutation(xyz[valid])
    np.testing.assert_array_equal(project_points(shuffled, CAMERA), xyz)


def test_nearest_point_of_a_pixel_stays() -> None:
    points = np.array([[0, 0, 0.9], [0, 0, 0.4], [0, 0, 0.7], [0, 0, -0.1]], np.float32)
    camera = Camera(10, 10, 1, 1, 3, 3)
    image = project_points(points, camera)
    np.testing.assert_array_equal(image[1, 1], points[1])
    assert np.count_nonzero(image.any(axis=2)) == 1
    with pytest.raises(InputError, match="inside the image"):
        project_points(points + np.float32([50, 0, 0]), camera)


@pytest.mark.parametrize(
    ("file", "data", "options"),
    [
        ("a.png", image_bytes(DEPTH, "PNG"), {}),
        ("a.png", image_bytes(DEPTH, "PNG"), {"scale": 0.001}),
        ("a.tiff", tiff_bytes(DEPTH), {"scale": 0.001}),
        ("a.tif", tiff_bytes(DEPTH.astype(np.float32) / 1000), {}),
        ("a.npy", npy_bytes(DEPTH.astype(np.float64)[..., None]), {"unit": "mm"}),
    ],
)
def test_every_depth_format_gives_metres(file: str, data: bytes, options: dict, tmp_path: Path) -> None:
    depth = read_depth(save(tmp_path / file, data), **options)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, DEPTH / 1000, rtol=1e-6)


def test_depth_without_measurement_is_zero_and_far_depth_refused(tmp_path: Path) -> None:
    depth = np.array([[np.nan, np.inf, -1, 0, 0.5]], np.float32)
    np.testing.assert_array_equal(read_depth(save(tmp_path / "a.npy", npy_bytes(depth))), [[0, 0, 0, 0, 0.5]])
    with pytest.raises(InputError, match="unit='mm'"):
        read_depth(save(tmp_path / "b.npy", npy_bytes(DEPTH.astype(np.float32))))
    with pytest.raises(InputError, match="depth_scale"):
        read_depth(save(tmp_path / "c.npy", npy_bytes(DEPTH)), scale=1.0)
    with pytest.raises(InputError, match="6×9"):
        depth_to_xyz(np.ones((6, 8), np.float32), CAMERA)


def test_camera_from_json_and_yaml(tmp_path: Path) -> None:
    path = save(tmp_path / "camera.json", b'{"fx": 10, "fy": 12.0, "cx": 4, "cy": 2.5, "unit": "mm"}')
    assert read_camera(path) == Camera(10, 12, 4, 2.5, unit="mm")
    path = save(tmp_path / "camera.yaml", b"fx: 10\nfy: 12\ncx: 4\ncy: 2.5\nwidth: 9\nheight: 6\n")
    assert read_camera(path) == CAMERA


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fx": None}, "fx"),
        ({"fx": -1}, "positive"),
        ({"fx": 10**400}, "finite"),
        ({"cx": float("nan")}, "finite"),
        ({"cy": "2"}, "finite"),
        ({"distortion": [0.1]}, "unknown distortion"),
        ({"unit": "cm"}, "'m' or 'mm'"),
        ({"width": 9}, "both or neither"),
        ({"width": 9.5, "height": 6}, "whole number"),
        ({"depth_scale": 0}, "positive"),
    ],
)
def test_bad_cameras_are_refused(change: dict, message: str, tmp_path: Path) -> None:
    content = {"fx": 10, "fy": 12, "cx": 4, "cy": 2.5} | change
    path = save(tmp_path / "camera.json", json.dumps(content).encode())
    with pytest.raises(InputError, match=message) as error:
        read_camera(path)
    assert "camera.json" in str(error.value)
    save(path, json.dumps({"fx": 10}).encode())
    with pytest.raises(InputError, match="missing fy, cx, cy"):
        read_camera(path)


# --- unorganized clouds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "data"),
    [
        *(("a.ply", ply_bytes(XYZ.reshape(-1, 3), form)) for form in PLY_FORMATS),
        *(("a.pcd", pcd_bytes(XYZ.reshape(-1, 3), form)) for form in PCD_FORMATS),
        ("a.npy", npy_bytes(XYZ.reshape(-1, 3))),
    ],
)
def test_unorganized_clouds_need_a_camera_or_the_size(file: str, data: bytes, tmp_path: Path) -> None:
    path = save(tmp_path / file, data)
    with pytest.raises(InputError, match=r"organized.*unorganized list of 54 points") as error:
        read_xyz(path)
    assert file in str(error.value)
    assert "\n" not in str(error.value)
    np.testing.assert_array_equal(read_xyz(path, shape=(6, 9)), XYZ)


def test_unorganized_cloud_is_projected(tmp_path: Path) -> None:
    xyz = depth_to_xyz(DEPTH / 1000, CAMERA)
    xyz[4, 4] = 0
    points = xyz[xyz.any(axis=2)][::-1]
    path = save(tmp_path / "a.ply", ply_bytes(points, "binary_little_endian"))
    np.testing.assert_array_equal(read_xyz(path, camera=CAMERA), xyz)
    sizeless = Camera(10, 12, 4, 2.5)
    np.testing.assert_array_equal(read_xyz(path, camera=sizeless, shape=(6, 9)), xyz)
    with pytest.raises(InputError, match="width and height"):
        read_xyz(path, camera=sizeless)
