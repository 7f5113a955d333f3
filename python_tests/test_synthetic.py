"""The procedural set: reproducible, plausible, and true to its masks."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

from cfr_fast.data import mvtec3d, project_points, read_camera
from cfr_fast.data.preparation import is_prepared, prepare
from cfr_fast.data.sample import Sample
from cfr_fast.data.synthetic import (
    categories,
    defects,
    intrinsics,
    load_category,
    make_sample,
    one_to_many,
    write_dataset,
)
from cfr_fast.data.synthetic.catalogue import RECIPES
from cfr_fast.data.synthetic.scene import make_scene
from cfr_fast.errors import InputError, OutputError

COMBINATIONS = [(category, defect) for category in categories() for defect in defects()]


def same(a: Sample, b: Sample) -> bool:
    return all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in ("rgb", "xyz", "ground_truth")
    )


def test_there_are_enough_categories_of_both_kinds() -> None:
    assert len(categories()) >= 6
    assert len(one_to_many()) >= 3
    assert len(set(categories()) - set(one_to_many())) >= 3
    assert {"dent", "bump", "colour", "rough", "hole"} <= set(defects())


@pytest.mark.parametrize("category", categories())
def test_same_arguments_give_same_bytes_in_any_order(category: str) -> None:
    first = [make_sample(category, index, "test", "dent", seed=3, size=64) for index in (0, 1)]
    second = [make_sample(category, index, "test", "dent", seed=3, size=64) for index in (1, 0)]
    assert same(first[0], second[1])
    assert same(first[1], second[0])
    assert not same(first[0], first[1])


def test_every_part_of_the_seed_counts() -> None:
    base = make_sample("cookie", 1, "train", seed=0, size=64)
    others = [
        make_sample("cookie", 1, "train", seed=1, size=64),
        make_sample("cookie", 1, "test", seed=0, size=64),
        make_sample("cookie", 2, "train", seed=0, size=64),
    ]
    assert all((base.rgb != other.rgb).any() and (base.xyz != other.xyz).any() for other in others)


def test_bytes_do_not_depend_on_the_process() -> None:
    code = (
        "import hashlib; from cfr_fast.data.synthetic import make_sample;"
        "s = make_sample('gummy', 2, 'test', 'rough', seed=5, size=64);"
        "print(hashlib.sha256(s.rgb.tobytes() + s.xyz.tobytes() + s.ground_truth.tobytes()).hexdigest())"
    )
    root = Path(__file__).resolve().parents[1]
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(("category", "defect"), COMBINATIONS)
def test_mask_marks_what_differs_from_the_unharmed_part(category: str, defect: str) -> None:
    good, harmed = (make_sample(category, 7, "test", kind) for kind in ("good", defect))
    assert good.ground_truth is not None
    assert harmed.ground_truth is not None
    assert not good.ground_truth.any()
    assert (good.is_anomalous, harmed.is_anomalous) == (False, True)
    mask = harmed.ground_truth
    part = binary_dilation(good.valid | harmed.valid, iterations=3)
    assert 20 < mask.sum() < 0.3 * part.sum()
    assert not (mask & ~part).any()
    # Both renders share every pixel's noise, so what differs is the defect.
    colour = np.abs(good.rgb.astype(int) - harmed.rgb).max(axis=2)
    depth = np.abs(good.xyz[..., 2] - harmed.xyz[..., 2]) * 1000
    assert ((colour >= 5) | (depth >= 0.2))[mask].mean() > 0.8
    outside = ~binary_dilation(mask, iterations=2)
    assert ((colour >= 13) | (depth >= 0.5))[outside].sum() < 0.05 * mask.sum()
    assert (colour[outside] == 0).mean() > 0.9
    if defect == "colour":
        assert np.array_equal(good.xyz, harmed.xyz)
    else:
        assert depth[mask].max() > 0.4


@pytest.mark.parametrize(
    ("size", "defect"), [*((64, defect) for defect in ("good", *defects())), (128, "dent"), (512, "hole")]
)
def test_every_size_works(size: int, defect: str) -> None:
    sample = make_sample("donut", 4, "test", defect, size=size)
    assert sample.rgb.shape == sample.xyz.shape == (size, size, 3)
    assert sample.ground_truth is not None
    assert sample.ground_truth.any() == (defect != "good")


def test_another_size_shows_the_same_part() -> None:
    small, large = (make_sample("wafer", 1, "test", "colour", size=size) for size in (64, 256))
    shrunk = large.rgb.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(small.rgb - shrunk).mean() < 8
    assert small.ground_truth is not None
    assert large.ground_truth is not None
    centres = [np.argwhere(sample.ground_truth).mean(axis=0) / sample.shape[0] for sample in (small, large)]
    assert np.abs(centres[0] - centres[1]).max() < 0.03


@pytest.mark.parametrize("category", categories())
def test_parts_are_wholly_in_view_and_stand_out(category: str) -> None:
    sharp = []
    for index in range(20):
        sample = make_sample(category, index, seed=index, size=64)
        border = np.ones((64, 64), dtype=bool)
        border[2:-2, 2:-2] = False
        assert not sample.valid[border].any()
        assert 0.05 < sample.valid.mean() < 0.5
        table = np.median(sample.rgb[border], axis=0)
        sharp.append(np.abs(sample.rgb[sample.valid] - table).max(axis=1).mean())
        assert (sample.rgb[sample.valid] == 255).all(axis=1).mean() < 0.01
    assert min(sharp) > 25


@pytest.mark.parametrize("category", categories())
def test_geometry_is_metric_and_matches_the_camera(category: str) -> None:
    sample = make_sample(category, 3, background=True)
    valid = sample.valid
    assert 0.9 < valid.mean() < 1  # some points are always missing
    assert ((sample.xyz[valid] != 0).any(axis=1)).all()
    assert 0.38 < sample.xyz[valid][:, 2].min() < sample.xyz[valid][:, 2].max() < 0.52
    camera = intrinsics(256)
    u = sample.xyz[..., 0] / np.where(valid, sample.xyz[..., 2], 1) * camera.fx + camera.cx
    v = sample.xyz[..., 1] / np.where(valid, sample.xyz[..., 2], 1) * camera.fy + camera.cy
    rows, cols = np.indices(valid.shape)
    assert np.abs(u - cols)[valid].max() < 0.01
    assert np.abs(v - rows)[valid].max() < 0.01
    assert project_points(sample.xyz[valid], camera).shape == sample.xyz.shape
    part = make_sample(category, 3)
    extent = np.ptp(part.xyz[part.valid], axis=0)
    assert 0.05 < extent[:2].max() < 0.11
    assert np.array_equal(part.rgb, sample.rgb)
    assert np.array_equal(part.xyz[part.valid], sample.xyz[part.valid])


@pytest.mark.parametrize("category", categories())
def test_raw_samples_can_be_prepared(category: str) -> None:
    raw, clean = (make_sample(category, 6, "test", "hole", background=kept) for kept in (True, False))
    assert is_prepared(clean)
    assert not is_prepared(raw)
    found = prepare(raw).valid
    assert (found & clean.valid).sum() > 0.97 * (found | clean.valid).sum()


@pytest.mark.parametrize("category", categories())
def test_one_shape_has_many_colourings_where_and_only_where_it_should(category: str) -> None:
    scene = make_scene(category, 0, "train", 0, 64)
    recipe = RECIPES[category]
    shape = recipe.shape(scene.canvas, np.random.default_rng(1))
    before = shape.height.copy()
    looks = [recipe.look(scene.canvas, shape, np.random.default_rng(k)).albedo for k in range(8)]
    assert np.array_equal(before, shape.height)
    hue = np.stack([look / look.sum(axis=2, keepdims=True) for look in looks])[:, before > 0]
    spread = float(hue.std(axis=0).max(axis=1).mean())
    assert spread > 0.04 if category in one_to_many() else spread < 0.02


def test_trivial_measurements_do_not_reveal_defects() -> None:
    from sklearn.metrics import roc_auc_score

    truth: list[bool] = []
    measured: dict[str, list[float]] = {"valid points": [], "table": [], "part": []}
    for category in ("cookie", "donut"):
        values: dict[str, list[float]] = {name: [] for name in measured}
        for kind, start, count in (("good", 0, 25), *((d, 100, 5) for d in defects())):
            for index in range(start, start + count):
                sample = make_sample(category, index + 10 * len(kind), "test", kind, size=64)
                values["valid points"].append(float(sample.valid.sum()))
                values["table"].append(float(sample.rgb[:8].mean()))
                values["part"].append(float(sample.rgb[sample.valid].mean()))
                truth.append(kind != "good")
        for name, found in values.items():
            measured[name] += list((np.array(found) - np.mean(found)) / np.std(found))
    for name, found in measured.items():
        assert 0.3 < roc_auc_score(truth, found) < 0.7, name


def test_category_is_listed_lazily_and_can_be_sent_to_workers() -> None:
    category = load_category("praline", train=2, good=3, defective_per_type=2, seed=4, size=64, validation=1)
    assert (len(category.train), len(category.validation)) == (2, 1)
    assert len(category.test) == 3 + 2 * len(defects())
    names = [source.name for source in (*category.train, *category.validation, *category.test)]
    assert len(set(names)) == len(names)
    source = pickle.loads(pickle.dumps(category.test[-1]))
    sample = source.load()
    assert sample.name == source.name == f"test/{defects()[-1]}/001"
    assert sample.defect == source.defect == defects()[-1]
    assert same(sample, category.test[-1].load())
    photos = {
        source.load().rgb.tobytes() for source in (*category.train, *category.validation, *category.test)
    }
    assert len(photos) == len(names)


def test_written_set_reads_back_equal(tmp_path: Path) -> None:
    out = write_dataset(tmp_path / "deep" / "set", ["wafer", "gummy"], 2, 2, 1, seed=1, size=64, validation=1)
    assert mvtec3d.list_categories(out) == ["gummy", "wafer"]
    for name in ("gummy", "wafer"):
        made = load_category(name, 2, 2, 1, seed=1, size=64, validation=1)
        read = mvtec3d.load_category(out, name)
        for split in ("train", "validation", "test"):
            pairs = {source.name: source for source in getattr(made, split)}
            assert {source.name for source in getattr(read, split)} == set(pairs)
            for source in getattr(read, split):
                assert same(source.load(), pairs[source.name].load())
    assert read_camera(out / "camera.json") == intrinsics(64)
    assert [path.name for path in out.parent.iterdir()] == ["set"]


def test_a_set_replaces_a_set_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "set"
    out.mkdir()
    write_dataset(out, ["cookie"], 1, 1, 0, size=64, validation=0)
    write_dataset(out, ["donut"], 1, 0, 0, size=64, validation=0)
    assert mvtec3d.list_categories(out) == ["donut"]
    (out / "donut" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        write_dataset(out, ["cookie"], 1, 0, 0, size=64)
    assert (out / "donut" / "notes.txt").read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    for target in (other, other / "file"):
        with pytest.raises(InputError, match="out"):
            write_dataset(target, ["cookie"], 1, 0, 0, size=64)
    (other / "synthetic.json").write_text("{")
    with pytest.raises(InputError, match=r"synthetic\.json"):
        write_dataset(other, ["cookie"], 1, 0, 0, size=64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "set"]


def test_nothing_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(OutputError):
        write_dataset(blocked / "set", ["cookie"], 1, 0, 0, size=64)
    out = write_dataset(tmp_path / "set", ["cookie"], 1, 0, 0, size=64)

    def fail(*_: object) -> None:
        raise OutputError("disk full")

    monkeypatch.setattr("cfr_fast.data.synthetic.dataset.write_xyz", fail)
    with pytest.raises(OutputError, match="disk full"):
        write_dataset(out, ["donut"], 1, 0, 0, size=64)
    assert mvtec3d.list_categories(out) == ["cookie"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "set"]


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("category", {"category": "bread"}),
        ("split", {"split": "dev"}),
        ("defect", {"defect": "scratch"}),
        ("index", {"index": -1}),
        ("index", {"index": 1.5}),
        ("seed", {"seed": -1}),
        ("size", {"size": 63}),
        ("size", {"size": 4096}),
    ],
)
def test_bad_arguments_are_named(argument: str, arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"^{argument}: expected"):
        make_sample(**{"category": "cookie", "index": 0, **arguments})  # type: ignore[arg-type]


def test_bad_counts_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^train"):
        load_category("cookie", train=0)
    with pytest.raises(InputError, match=r"^category"):
        write_dataset(tmp_path / "set", ["bread"])
    assert not list(tmp_path.iterdir())


@given(
    st.sampled_from(categories()),
    st.sampled_from(("good", *defects())),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(64, 100),
)
@settings(max_examples=25, deadline=None)
def test_any_valid_arguments_make_a_sample(
    category: str, defect: str, index: int, seed: int, size: int
) -> None:
    sample = make_sample(category, index, "test", defect, seed, size)
    assert sample.ground_truth is not None
    assert sample.ground_truth.any() == (defect != "good")
    assert np.isfinite(sample.xyz).all()
