"""The folder of a benchmark: what is written comes back, and broken or unfinished files are told apart."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from toy_detector import ToyDetector, toy_category

from cfr_fast.errors import InputError, OutputError
from cfr_fast.evaluation import Evidence, Images, RunKey, Store, evaluate_category, slug


@pytest.fixture(scope="module")
def result():
    return replace(
        evaluate_category(toy_category(), 1, 42, ToyDetector, 16, method="CFR nearest"),
        skipped=("test/red/009",),
        record={"versions": {"numpy": np.__version__}},
    )


KEY = RunKey("toy", "CFR nearest", 1, 42)


def evidence() -> Evidence:
    rng = np.random.default_rng(0)
    maps = rng.random((2, 3, 4, 4)).astype(np.float16)
    masks = (rng.random((2, 3, 4, 4)) < 0.5).astype(np.uint8)
    return Evidence(("a", "b", "c"), *maps, *masks, 1.5, 0.75)


def same(one, other) -> bool:
    return all(
        np.array_equal(getattr(one, entry.name), getattr(other, entry.name)) for entry in fields(one)
    ) and all(
        getattr(one, entry.name).dtype == getattr(other, entry.name).dtype
        for entry in fields(one)
        if isinstance(getattr(one, entry.name), np.ndarray)
    )


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("CFR", "cfr"),
        ("PatchCore RGB+3D", "patchcore-rgb-3d"),
        ("cycle only", "cycle-only"),
        ("θ 0.25", "0-25"),
    ],
)
def test_folders_are_named_by_slugs(name, folder):
    assert slug(name) == folder


def test_results_come_back_under_their_names(tmp_path: Path, result) -> None:
    store = Store(tmp_path)
    assert store.keys() == []
    assert not store.has_result(KEY)
    store.write_result(KEY, result)
    assert (tmp_path / "results/toy/cfr-nearest/1-shot_seed-42.json").is_file()
    assert store.has_result(KEY)
    assert store.keys() == [KEY]
    assert store.result(KEY).to_json() == result.to_json()
    assert [found.skipped for found in store.results()] == [("test/red/009",)]


def test_an_infinite_threshold_comes_back(tmp_path: Path, result) -> None:
    """Models imported from the authors' checkpoints have none: no score exceeds it."""
    endless = replace(
        result, images=tuple(replace(row, threshold=math.inf, label=False) for row in result.images)
    )
    store = Store(tmp_path)
    store.write_result(KEY, endless)
    (path,) = (tmp_path / "results").rglob("*.json")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    plain = json.loads(path.read_text(), parse_constant=refuse)
    assert {row["threshold"] for row in plain["images"]} == {None}
    assert store.result(KEY).images == endless.images
    assert store.result(KEY).to_json() == endless.to_json()
    kept = replace(evidence(), threshold=math.inf, pixel_threshold=math.inf)
    store.write_evidence(KEY, kept)
    assert same(store.evidence(KEY), kept)


def test_methods_are_listed_in_the_order_of_the_record(tmp_path: Path, result) -> None:
    store = Store(tmp_path)
    assert store.record() is None
    store.write_record({"methods": ["PatchCore 3D", "CFR"]})
    assert store.record() == {"methods": ["PatchCore 3D", "CFR"]}
    for category, method in (("b", "CFR"), ("a", "CFR"), ("a", "PatchCore 3D")):
        for shots in (4, 1):
            store.write_result(RunKey(category, method, shots, 0), result)
    found = [(key.category, key.method, key.shots) for key in store.keys()]  # noqa: SIM118
    one = [("a", "PatchCore 3D"), ("a", "CFR"), ("b", "CFR")]
    assert found == [(*head, shots) for head in one for shots in (1, 4)]


def test_maps_and_images_come_back(tmp_path: Path) -> None:
    store, kept = Store(tmp_path), evidence()
    assert store.evidence(KEY) is store.images("toy") is None
    store.write_evidence(KEY, kept)
    assert same(store.evidence(KEY), kept)
    rng = np.random.default_rng(1)
    images = Images(
        ("a",),
        rng.integers(0, 255, (1, 4, 4, 3), dtype=np.uint8),
        rng.random((1, 4, 4)).astype(np.float16),
        np.full((1, 4, 4), 255, np.uint8),
    )
    store.write_images("toy", images)
    assert same(store.images("toy"), images)
    assert store.has_images("toy")
    assert store.has_evidence(KEY)
    assert store.keys() == []  # a run without a result is not done


def test_broken_files_are_named(tmp_path: Path, result) -> None:
    store = Store(tmp_path)
    store.write_result(KEY, result)
    store.write_evidence(KEY, evidence())
    for path in tmp_path.rglob("*-42.*"):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"1-shot_seed-42\.json"):
        store.result(KEY)
    with pytest.raises(InputError, match=r"1-shot_seed-42\.safetensors"):
        store.evidence(KEY)
    (tmp_path / "run.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match=r"run\.json"):
        store.record()


def test_unfinished_files_are_swept(tmp_path: Path, result) -> None:
    store = Store(tmp_path)
    store.write_result(KEY, result)
    left = tmp_path / "results/toy/cfr-nearest/.2-shot_seed-42.json.0a0b.tmp"
    left.write_text("{")
    assert store.keys() == [KEY]
    store.sweep()
    assert not left.exists()
    assert store.keys() == [KEY]


def test_an_unwritable_place_is_one_clear_error(tmp_path: Path, result) -> None:
    (tmp_path / "results").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        Store(tmp_path).write_result(KEY, result)
