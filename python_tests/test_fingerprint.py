"""A dataset's fingerprint: the same wherever it lies, another as soon as it changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toy_detector import toy_category, toy_sample

from cfr_fast.data import (
    DatasetName,
    fingerprint,
    list_categories,
    load_category,
    write_mask,
    write_rgb,
    write_xyz,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for group, defect in (("train/good", "good"), ("test/good", "good"), ("test/red", "red")):
        for number in range(2):
            folder = tmp_path / "here" / "toy" / group
            sample = toy_sample(str(number), defect, number)
            write_rgb(folder / "rgb" / f"{number:03d}.png", sample.rgb)
            write_xyz(folder / "xyz" / f"{number:03d}.tiff", sample.xyz)
            if defect != "good":
                write_mask(folder / "gt" / f"{number:03d}.png", sample.ground_truth)
    return tmp_path / "here"


def of(root: Path, dataset: DatasetName = "mvtec3d") -> str:
    return fingerprint(load_category(dataset, root, list_categories(dataset, root)[0]))


def test_it_stays_where_nothing_changed(data: Path) -> None:
    assert of(data) == of(data)
    shutil.copytree(data, data.with_name("there"))
    assert of(data.with_name("there")) == of(data)
    assert len(of(data)) == 16


@pytest.mark.parametrize(
    "part",
    ["train/good/rgb/000.png", "test/good/xyz/001.tiff", "test/red/gt/000.png", "test/red/rgb/001.png"],
)
def test_any_file_counts(data: Path, part: str) -> None:
    before = of(data)
    path = data / "toy" / part
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    changed = of(data)
    assert changed != before
    path.write_bytes(content[:-1])
    assert of(data) not in (before, changed)
    path.write_bytes(content)
    assert of(data) == before


def test_other_layouts_count_their_files_too(candy_cane: Path, data: Path) -> None:
    category = load_category("eyecandies", candy_cane, "CandyCane")
    assert {path.name.partition("_")[2] for path in category.test[0].files} >= {"image_4.png", "depth.png"}
    assert fingerprint(category) == fingerprint(category)
    assert of(data, "folder") == of(data)  # the same files under the same names


def test_made_samples_count_by_name() -> None:
    assert fingerprint(toy_category()) == fingerprint(toy_category())
    assert fingerprint(toy_category()) != fingerprint(toy_category(defective=2))


def test_a_lost_file_counts_and_is_no_error(data: Path) -> None:
    category = load_category("mvtec3d", data, "toy")
    before = fingerprint(category)
    (data / "toy" / "train/good/xyz/000.tiff").unlink()
    assert fingerprint(category) != before
