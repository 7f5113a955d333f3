"""Prepared copies on disk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cfr_fast.data import load_category
from cfr_fast.data.folder import load_category as load_folder
from cfr_fast.data.preparation import prepare
from cfr_fast.data.prepared import prepare_category
from cfr_fast.data.sample import Category, Sample, SampleSource
from cfr_fast.errors import InputError, OutputError

V, U = np.mgrid[:80, :100] - 40.0
BOX = (abs(U - 10) < 18) & (abs(V) < 18)
loaded: list[str] = []


def source(name: str, defect: str | None, flat: bool = False) -> SampleSource:
    def load() -> Sample:
        loaded.append(name)
        depth = 0.5 - 0.02 * (BOX & (not flat))
        rgb = np.random.default_rng(len(name)).integers(0, 256, (80, 100, 3), dtype=np.uint8)
        xyz = np.stack([U * 0.0006, V * 0.0006, depth], axis=2).astype(np.float32)
        truth = (
            BOX & (U > 20) if defect == "dent" else np.zeros(BOX.shape, bool) if defect == "good" else None
        )
        return Sample(rgb, xyz, truth, name, defect)

    return SampleSource(name, load, defect)


CATEGORY = Category(
    "biscuit",
    train=(source("train/00", "good"), source("train/01", "good")),
    validation=(source("val/00", "good"),),
    test=(source("test/00", "good"), source("test/01", "dent")),
)


@pytest.fixture(autouse=True)
def _count_loads():
    loaded.clear()


def test_reads_back_as_mvtec(tmp_path):
    report = prepare_category(CATEGORY, tmp_path)
    assert (report.folder, report.written, report.skipped) == (tmp_path / "biscuit", 5, 0)
    assert report.with_background == ()
    back = load_category("mvtec3d", tmp_path, "biscuit")
    assert [s.name for s in back.train] == ["train/good/00", "train/good/01"]
    assert [s.name for s in back.validation] == ["validation/good/00"]
    assert [s.name for s in back.test] == ["test/dent/01", "test/good/00"]
    for copy, original in zip(back.test, CATEGORY.test[::-1], strict=True):
        got, want = copy.load(), prepare(original.load())
        np.testing.assert_array_equal(got.rgb, want.rgb)
        np.testing.assert_array_equal(got.xyz, want.xyz)
        np.testing.assert_array_equal(got.ground_truth, want.ground_truth)
        assert got.valid.sum() == BOX.sum()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_second_run_continues(tmp_path):
    prepare_category(CATEGORY, tmp_path)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    (tmp_path / "biscuit/test/dent/xyz/01.tiff").unlink()
    loaded.clear()
    report = prepare_category(CATEGORY, tmp_path)
    assert loaded == ["test/01"]
    assert (report.written, report.skipped) == (1, 4)
    assert kept == {path: path.read_bytes() for path in tmp_path.rglob("*.*")}


def test_other_settings_and_foreign_files_are_refused(tmp_path):
    prepare_category(CATEGORY, tmp_path / "a", "plane")
    with pytest.raises(InputError, match="an earlier run with"):
        prepare_category(CATEGORY, tmp_path / "a", "plane", seed=1)
    foreign = tmp_path / "b" / "biscuit" / "notes.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    with pytest.raises(InputError, match="one with other files in it"):
        prepare_category(CATEGORY, tmp_path / "b")
    assert [p.name for p in foreign.parent.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("source", ["data", "data/biscuit"])
@pytest.mark.parametrize("out", ["data", "data/biscuit", "data/../data"])
def test_the_source_is_never_written_to(tmp_path, source, out):
    (tmp_path / "data/biscuit/train").mkdir(parents=True)
    with pytest.raises(InputError, match="out: expected a folder apart from the data"):
        prepare_category(CATEGORY, tmp_path / out, source=tmp_path / source)
    assert not loaded


def test_a_folder_beside_the_source_is_fine(tmp_path):
    (tmp_path / "data").mkdir()
    assert prepare_category(CATEGORY, tmp_path / "out", source=tmp_path / "data").written == 5


def test_unknown_kinds_equal_stems_and_backgrounds_that_stay(tmp_path):
    train = (source("a/0", "good"), source("b/0", "good", flat=True))
    category = replace(CATEGORY, train=train, test=(source("x", None),), validation=())
    report = prepare_category(category, tmp_path)
    assert report.with_background == ("b/0",)
    back = load_folder(tmp_path, "biscuit")
    assert [s.name.rpartition("/")[2] for s in back.train] == ["a_0", "b_0"]
    assert [(s.name.rpartition("/")[2], s.defect) for s in back.test] == [("x", None)]
    assert not list(tmp_path.rglob("gt"))


def test_unwritable_output(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        prepare_category(CATEGORY, tmp_path / "file")
