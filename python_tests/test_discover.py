"""Samples found from whatever a user points at."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from cloud_files import DEPTH, RGB, XYZ, image_bytes, npy_bytes, ply_bytes, save
from hypothesis import given, settings
from hypothesis import strategies as st
from test_datasets import MASK, make_eyecandies, make_mvtec

from cfr_fast.data import Camera, depth_to_xyz, find_samples, write_mask, write_rgb, write_xyz
from cfr_fast.data.companions import SampleKey
from cfr_fast.data.discover import _short_names
from cfr_fast.errors import InputError

CAMERA = Camera(10, 10, 4, 3)
PARTS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple)


@pytest.mark.parametrize("file", ["rgb/001.png", "xyz/001.tiff", "gt/001.png"])
def test_any_file_of_a_sample_stands_for_it(file: str, tmp_path: Path) -> None:
    folder = make_mvtec(tmp_path) / "nut" / "test" / "bent"
    (source,) = find_samples(folder / file)
    assert (source.name, source.defect) == ("001", "bent")
    np.testing.assert_array_equal(source.load().ground_truth, MASK)


@pytest.mark.parametrize("file", ["01_image_4.png", "01_image_0.png", "01_depth.png", "01_mask.png"])
def test_eyecandies_files(file: str, tmp_path: Path) -> None:
    folder = make_eyecandies(tmp_path) / "Sweet" / "test_public" / "data"
    save(folder / "01_image_0.png", image_bytes(RGB // 2, "PNG"))
    (source,) = find_samples([folder / file])
    assert (source.name, source.defect) == ("01", "bumps")
    np.testing.assert_array_equal(source.load().rgb, RGB)


@pytest.mark.parametrize("file", ["a.png", "a_depth.npy", "a_gt.png"])
def test_neighbours_of_the_same_stem(file: str, tmp_path: Path) -> None:
    write_rgb(tmp_path / "a.png", RGB)
    save(tmp_path / "a_depth.npy", npy_bytes(DEPTH / 1000))
    write_mask(tmp_path / "a_gt.png", MASK)
    (source,) = find_samples(tmp_path / file, CAMERA)
    sample = source.load()
    assert (sample.name, sample.defect, sample.is_anomalous) == ("a", None, True)
    np.testing.assert_allclose(sample.xyz, depth_to_xyz(DEPTH / 1000, CAMERA), rtol=1e-6)
    camera = save(tmp_path / "elsewhere" / "lens.json", b'{"fx": 10, "fy": 10, "cx": 4, "cy": 3}')
    np.testing.assert_array_equal(find_samples(tmp_path / file, camera)[0].load().xyz, sample.xyz)


def test_unorganized_cloud_in_millimetres(tmp_path: Path) -> None:
    xyz = depth_to_xyz(DEPTH / 1000, CAMERA)
    xyz[0, 0] = 0
    write_rgb(tmp_path / "a.png", RGB)
    save(tmp_path / "a.ply", ply_bytes(xyz[xyz.any(axis=2)] * 1000, "binary_little_endian"))
    (source,) = find_samples(tmp_path, CAMERA, "mm")
    np.testing.assert_allclose(source.load().xyz, xyz, rtol=1e-5)
    with pytest.raises(InputError, match="unit='mm'"):
        find_samples(tmp_path, CAMERA)[0].load()
    with pytest.raises(InputError, match="unorganized"):
        find_samples(tmp_path, unit="mm")[0].load()
    with pytest.raises(InputError, match="'m' or 'mm'"):
        find_samples(tmp_path, unit="inch")


def test_cloud_comes_before_depth(tmp_path: Path) -> None:
    write_rgb(tmp_path / "a.png", RGB)
    save(tmp_path / "a_depth.png", image_bytes(DEPTH, "PNG"))
    write_xyz(tmp_path / "a.tiff", XYZ)
    np.testing.assert_array_equal(find_samples(tmp_path)[0].load().xyz, XYZ)


def test_folders_are_walked_and_sorted_and_samples_come_once(tmp_path: Path) -> None:
    make_mvtec(tmp_path)
    make_eyecandies(tmp_path)
    save(tmp_path / "nut" / "readme.txt", b"nothing")
    save(tmp_path / ".trash" / "lonely.png", image_bytes(RGB, "PNG"))
    bent = tmp_path / "nut" / "test" / "bent"
    sources = find_samples([bent / "rgb" / "001.png", tmp_path, bent / "xyz" / "000.tiff"])
    names = [source.name for source in sources]
    assert names[0] == "test/bent/001"
    own = [source.name for source in find_samples(tmp_path / "nut")]
    assert own == sorted(own)
    assert len(set(names)) == len(names) == 8 + 7
    for source in sources:
        source.load()


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    make_mvtec(tmp_path / "data")
    (tmp_path / "view").mkdir()
    os.symlink(tmp_path / "data" / "nut", tmp_path / "view" / "nut")
    os.symlink(tmp_path / "view", tmp_path / "data" / "nut" / "loop")
    assert len(find_samples(tmp_path / "view")) == 8


def test_role_names_without_their_siblings_are_plain_folders(tmp_path: Path) -> None:
    write_rgb(tmp_path / "rgb" / "a.png", RGB)
    write_xyz(tmp_path / "rgb" / "a.tiff", XYZ)
    assert [source.name for source in find_samples(tmp_path)] == ["a"]


@pytest.mark.parametrize(
    ("file", "looked_for"),
    [("a.png", r"a_xyz\(\.tiff.* a_depth"), ("a.ply", r"a_rgb\(\.png"), ("a_depth.tiff", r"a\(\.png")],
)
def test_missing_companions(file: str, looked_for: str, tmp_path: Path) -> None:
    save(tmp_path / file, b"")
    for path in (tmp_path / file, tmp_path):
        with pytest.raises(InputError, match=looked_for) as error:
            find_samples(path)
        assert "'a'" in str(error.value)


def test_missing_companion_in_mvtec_layout(tmp_path: Path) -> None:
    folder = make_mvtec(tmp_path) / "nut" / "test" / "bent"
    (folder / "xyz" / "001.tiff").unlink()
    with pytest.raises(InputError, match=r"xyz/001\(\.tiff\|"):
        find_samples(folder / "rgb" / "001.png")


def test_paths_that_hold_nothing(tmp_path: Path) -> None:
    text = save(tmp_path / "notes.txt", b"")
    for paths, message in (
        ([], "at least one"),
        (tmp_path / "none.png", "nothing at this path"),
        (text, r"got \.txt"),
        (tmp_path, "without images"),
    ):
        with pytest.raises(InputError, match=message):
            find_samples(paths)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple),
        min_size=1,
        max_size=6,
        unique=True,
    )
)
def test_short_names_are_unique_and_no_longer_than_needed(paths: list[tuple[str, ...]]) -> None:
    keys = [SampleKey(Path("/root", *parts[:-1]), parts[-1], "stem") for parts in paths]
    names = _short_names(keys)
    assert len(set(names)) == len(names)
    assert all(f"root/{'/'.join(parts)}".endswith(name) for parts, name in zip(paths, names, strict=True))
    length = max(name.count("/") for name in names)
    assert length == 0 or len({"/".join(name.split("/")[-length:]) for name in names}) < len(names)
