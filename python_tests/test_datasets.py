"""The layouts of both benchmarks and of a user's own folders."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from cloud_files import DEPTH, RGB, XYZ, image_bytes, organized_ply, ply_bytes, save

from cfr_fast.data import (
    depth_to_xyz,
    detect_dataset,
    eyecandies,
    list_categories,
    load_category,
    read_camera,
    write_mask,
    write_rgb,
    write_xyz,
)
from cfr_fast.errors import InputError

MASK = RGB[..., 0] > 200


def make_mvtec(root: Path, category: str = "nut") -> Path:
    for group, numbers in (("train/good", 3), ("validation/good", 1), ("test/good", 2), ("test/bent", 2)):
        for number in range(numbers):
            folder = root / category / group
            write_rgb(folder / "rgb" / f"{number:03}.png", RGB)
            write_xyz(folder / "xyz" / f"{number:03}.tiff", XYZ)
            if group == "test/bent":
                write_mask(folder / "gt" / f"{number:03}.png", MASK)
    return root


def make_eyecandies(root: Path) -> Path:
    for split, numbers in (("train", 2), ("val", 1), ("test_public", 3), ("test_private", 1)):
        for number in range(numbers):
            stem = root / "Sweet" / split / "data" / f"{number:02}_"
            save(Path(f"{stem}image_4.png"), image_bytes(RGB, "PNG"))
            save(Path(f"{stem}depth.png"), image_bytes(DEPTH, "PNG"))
            save(Path(f"{stem}info_depth.yaml"), b"normalization:\n  max: 4.5\n  min: 2.5\n")
            if split != "test_private":
                write_mask(Path(f"{stem}mask.png"), MASK & (number > 0))
                flags = {"anomalous_bumps": number == 1, "anomalous_colors": number == 2}
                flags |= {"anomalous_dents": 0, "anomalous_normals": number == 2}
                lines = [f"{key}: {int(flag and split == 'test_public')}\n" for key, flag in flags.items()]
                save(Path(f"{stem}metadata.yaml"), "".join(lines).encode())
    return root


# --- real data ---------------------------------------------------------------------------------------------


def test_cable_gland(cable_gland: Path) -> None:
    assert detect_dataset(cable_gland.parent) == "mvtec3d"
    category = load_category("mvtec3d", cable_gland.parent, "cable_gland")
    assert (len(category.train), len(category.validation), len(category.test)) == (12, 2, 23)
    assert Counter(s.defect for s in category.test) == {
        "good": 7,
        "bent": 4,
        "cut": 4,
        "hole": 4,
        "thread": 4,
    }
    assert [s.name for s in category.train] == sorted(s.name for s in category.train)
    for source in (category.train[0], category.validation[1], category.test[0], category.test[10]):
        sample = source.load()
        assert sample.shape == (400, 400)
        assert sample.ground_truth is not None
        assert sample.ground_truth.any() == (source.defect != "good")
        z = sample.xyz[sample.valid][:, 2]
        assert 0.5 < z.min() < z.max() < 0.8
        assert 0.4 < sample.valid.mean() < 0.9


def test_candy_cane(candy_cane: Path) -> None:
    assert detect_dataset(candy_cane) == "eyecandies"
    category = load_category("eyecandies", candy_cane, "CandyCane")
    assert (len(category.train), len(category.validation), len(category.test)) == (12, 0, 16)
    kinds = Counter(s.defect for s in category.test)
    assert kinds["good"] == 8
    assert kinds["bumps+dents+colors+normals"] == 2
    assert {s.defect for s in category.train} == {"good"}
    for source in (category.train[0], category.test[0], category.test[-1]):
        sample = source.load()
        assert sample.shape == (512, 512)
        assert sample.ground_truth is not None
        assert sample.ground_truth.any() == (source.defect != "good")
        assert sample.valid.all()
        assert 2.3 < sample.xyz[..., 2].min() < sample.xyz[..., 2].max() < 4.95


# --- MVTec 3D-AD and Eyecandies ----------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["mvtec3d", "folder"])
@pytest.mark.parametrize("inside", [False, True])
def test_mvtec_layout(dataset: str, inside: bool, tmp_path: Path) -> None:
    root = make_mvtec(tmp_path) / "nut" if inside else make_mvtec(tmp_path)
    assert list_categories(dataset, root) == ["nut"]
    category = load_category(dataset, root, "nut")
    assert [s.name for s in category.train] == [f"train/good/00{i}" for i in range(3)]
    assert [(s.name, s.defect) for s in category.test] == [
        ("test/bent/000", "bent"),
        ("test/bent/001", "bent"),
        ("test/good/000", "good"),
        ("test/good/001", "good"),
    ]
    assert [s.name for s in category.validation] == ["validation/good/000"]
    sample = pickle.loads(pickle.dumps(category.test[0])).load()
    assert (sample.name, sample.defect) == ("test/bent/000", "bent")
    np.testing.assert_array_equal(sample.rgb, RGB)
    np.testing.assert_array_equal(sample.xyz, XYZ)
    np.testing.assert_array_equal(sample.ground_truth, MASK)
    good = category.test[3].load()
    assert good.ground_truth is not None
    assert not good.ground_truth.any()


@pytest.mark.parametrize(
    "missing", ["train/good/xyz/001.tiff", "test/bent/xyz/000.tiff", "test/bent/gt/001.png"]
)
def test_missing_parts_of_mvtec_are_named(missing: str, tmp_path: Path) -> None:
    (make_mvtec(tmp_path) / "nut" / missing).unlink()
    with pytest.raises(InputError, match=missing.rpartition("/")[2]):
        load_category("mvtec3d", tmp_path, "nut")


def test_eyecandies_layout(tmp_path: Path) -> None:
    category = load_category("eyecandies", make_eyecandies(tmp_path), "Sweet")
    assert [s.name for s in category.train] == ["train/00", "train/01"]
    assert [s.name for s in category.validation] == ["val/00"]
    assert [s.defect for s in category.test] == ["good", "bumps", "colors+normals"]
    sample = pickle.loads(pickle.dumps(category.test[1])).load()
    np.testing.assert_array_equal(sample.ground_truth, MASK)
    depth = DEPTH[1, 2] / 65535 * 2.0 + 2.5
    focal = 711.11 * 9 / 512
    expected = depth * np.array([(2 - 4.5) / focal, (1 - 3) / focal, 1])
    np.testing.assert_allclose(sample.xyz[1, 2], expected, rtol=1e-6)


def test_eyecandies_private_split_is_unknown(tmp_path: Path) -> None:
    category = eyecandies.load_category(make_eyecandies(tmp_path), "Sweet", "test_private")
    sample = category.test[0].load()
    assert (sample.defect, sample.ground_truth, sample.is_anomalous) == (None, None, None)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("00_info_depth.yaml", b"normalization: 3", "normalization.min"),
        ("00_info_depth.yaml", b"normalization: {min: 3, max: 2}", "min < max"),
        ("00_info_depth.yaml", b"{", "YAML"),
        ("00_metadata.yaml", b"[1]", "mapping"),
        ("00_depth.png", b"\x89PNG", "16-bit"),
        ("00_depth.png", None, "00_depth.png"),
    ],
)
def test_broken_eyecandies_are_named(file: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    path = make_eyecandies(tmp_path) / "Sweet" / "train" / "data" / file
    if content is None:
        path.unlink()
    else:
        save(path, content)
    with pytest.raises(InputError, match=message) as error:
        load_category("eyecandies", tmp_path, "Sweet").train[0].load()
    assert file in str(error.value)


# --- a user's own folders ----------------------------------------------------------------------------------


def test_folder_of_depth_images(tmp_path: Path) -> None:
    camera = {"fx": 10, "fy": 10, "cx": 4, "cy": 3, "depth_scale": 0.0005}
    save(tmp_path / "camera.json", json.dumps(camera).encode())
    for place in ("train/a", "train/good/b", "test/good/c", "test/scratch/d", "test/e"):
        save(tmp_path / "part" / f"{place}.jpg", image_bytes(RGB, "JPEG"))
        save(tmp_path / "part" / f"{place}_depth.png", image_bytes(DEPTH, "PNG"))
    write_mask(tmp_path / "part" / "test" / "scratch" / "d_mask.png", MASK)
    category = load_category("folder", tmp_path, "part")
    assert [(s.name, s.defect) for s in category.train] == [("train/a", "good"), ("train/good/b", "good")]
    assert {s.name: s.defect for s in category.test} == {
        "test/e": None,
        "test/good/c": "good",
        "test/scratch/d": "scratch",
    }
    unknown, _, scratched = (source.load() for source in category.test)
    assert unknown.ground_truth is None
    np.testing.assert_array_equal(scratched.ground_truth, MASK)
    expected = depth_to_xyz(DEPTH * 0.0005, read_camera(tmp_path / "camera.json"))
    np.testing.assert_allclose(scratched.xyz, expected, rtol=1e-6)
    # A camera nearer to the sample comes before one farther up.
    save(tmp_path / "part" / "test" / "camera.json", json.dumps(camera | {"depth_scale": 0.001}).encode())
    nearer = load_category("folder", tmp_path, "part").test[2].load()
    np.testing.assert_allclose(nearer.xyz, 2 * expected, rtol=1e-6)


def test_folder_of_clouds(tmp_path: Path) -> None:
    write_rgb(tmp_path / "train" / "a_rgb.png", RGB)
    save(tmp_path / "train" / "a_xyz.ply", organized_ply(XYZ * 1000, "binary_big_endian"))
    write_rgb(tmp_path / "train" / "b.PNG", RGB)
    # As many points as the photo has pixels: taken row by row.
    save(tmp_path / "train" / "b.ply", ply_bytes(XYZ.reshape(-1, 3) * 1000, "ascii"))
    save(tmp_path / "camera.yml", b"{fx: 1, fy: 1, cx: 0, cy: 0, unit: mm}")
    assert detect_dataset(tmp_path) == "folder"
    category = load_category("folder", tmp_path, tmp_path.name)
    assert category.test == category.validation == ()
    for source in category.train:
        np.testing.assert_allclose(source.load().xyz, XYZ, rtol=1e-6)


def test_incomplete_folder_samples_say_what_was_looked_for(tmp_path: Path) -> None:
    write_rgb(tmp_path / "train" / "a.png", RGB)
    with pytest.raises(InputError, match=r"'a'.*a_xyz\(\.tiff\|.*a_depth\(\.png\|"):
        load_category("folder", tmp_path, tmp_path.name)
    save(tmp_path / "train" / "a_depth.png", image_bytes(DEPTH, "PNG"))
    with pytest.raises(InputError, match=r"a_depth\.png: .*camera\.json"):
        load_category("folder", tmp_path, tmp_path.name)


def test_sizes_that_differ_name_the_sample(tmp_path: Path) -> None:
    make_mvtec(tmp_path)
    write_xyz(tmp_path / "nut" / "train" / "good" / "xyz" / "001.tiff", XYZ[:5])
    with pytest.raises(InputError, match=r"train/good/001.*6×9.*5×9"):
        load_category("mvtec3d", tmp_path, "nut").train[1].load()


# --- names that do not exist -------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["mvtec3d", "folder"])
def test_unknown_category_lists_and_suggests(dataset: str, tmp_path: Path) -> None:
    make_mvtec(make_mvtec(tmp_path, "Bagel"), "carrot")
    assert list_categories(dataset, tmp_path) == ["Bagel", "carrot"]
    with pytest.raises(InputError, match=r"one of Bagel, carrot.*did you mean 'Bagel'"):
        load_category(dataset, tmp_path, "bagels")


@pytest.mark.parametrize("dataset", ["mvtec3d", "eyecandies", "folder"])
def test_roots_that_are_no_dataset(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing at this path"):
        list_categories(dataset, tmp_path / "none")
    with pytest.raises(InputError, match="train"):
        load_category(dataset, tmp_path, "a")
    with pytest.raises(InputError, match="dataset"):
        detect_dataset(tmp_path)
    for place in ("a/train/good/rgb", "a/train/data"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
    with pytest.raises(InputError, match="at least one"):
        load_category(dataset, tmp_path, "a")


def test_unknown_dataset() -> None:
    with pytest.raises(InputError, match="mvtec3d, eyecandies, folder"):
        load_category("mvtec", ".", "a")


def test_relative_roots_know_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_mvtec(tmp_path) / "nut")
    assert list_categories("mvtec3d", ".") == ["nut"]
    assert load_category("mvtec3d", os.curdir, "nut").name == "nut"
