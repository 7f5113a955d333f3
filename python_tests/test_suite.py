"""A benchmark survives what happens to long runs: interruption, broken samples, a full disk, other plans."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from toy_detector import toy_category
from toy_suite import METHODS, ToyMethods, toy_suite

from cfr_fast.data.sample import SampleSource
from cfr_fast.errors import InputError, OutputError
from cfr_fast.evaluation import RunKey, Store
from cfr_fast.evaluation.methods import Method
from cfr_fast.evaluation.suite import run_suite

ALL = 3 * 2 * 2 * 2  # categories, shots, seeds, methods


def figures(folder: Path) -> list[dict]:
    """All results but for their timings."""
    found = json.loads((folder / "results.json").read_text())["results"]
    return [{**row, "fit_seconds": 0, "predict_seconds": 0} for row in found]


def counted(suite, built: list):
    """The suite, noting what it builds."""

    def build(methods, seed):
        built.append((tuple(method.name for method in methods), seed))
        return suite.build(methods, seed)

    return replace(suite, build=build)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    assert len(run_suite(toy_suite(), folder)) == ALL
    return folder


def test_it_leaves_every_result_the_record_and_the_tables(whole: Path) -> None:
    store = Store(whole)
    record = store.record()
    assert record is not None
    assert record["methods"] == ["CFR", "PatchCore RGB"]
    assert (record["rule"], record["shots"], record["seeds"]) == ("rng42", [1, 2], [42, 0])
    assert set(record["fingerprints"]) == {"almond", "biscuit", "candy"}
    assert record["versions"]["numpy"] == np.__version__
    result = store.result(RunKey("biscuit", "PatchCore RGB", 2, 0))
    assert result.record["fingerprint"] == record["fingerprints"]["biscuit"]
    assert result.record["definition"] == {"changes": {}, "patchcore": ["rgb"]}
    assert set(result.metrics) == set(result.intervals) == {"PatchCore RGB", "mask only", "random"}
    text, latex = (whole / "results.txt").read_text(), (whole / "results.tex").read_text()
    for word in ("CFR", "PatchCore RGB", "mask only", "random", "almond", "95 % intervals", "100.0±0.0"):
        assert word in text
    # Once for each category, number of shots and seed; once for their means, and once for their intervals.
    assert text.count("mask only") == text.count("random") == 3 * 2 * 2 + 2 + 2
    assert latex.count(r"\\") == 2 + 2 * 4
    assert r"100.0\,$\pm$\,0.0" in latex


def test_a_second_run_computes_nothing(whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*.json")}
    built: list = []
    run_suite(counted(toy_suite(), built), whole)
    assert built == []
    assert {path: path.read_bytes() for path in whole.rglob("*.json")} == before


def test_only_what_is_missing_is_computed(tmp_path: Path, whole: Path) -> None:
    small = toy_suite(methods=METHODS[:1], shots=(1,), seeds=(42,))
    assert len(run_suite(small, tmp_path)) == 3
    (tmp_path / "results/candy/cfr/1-shot_seed-42.json").unlink()
    built: list = []
    run_suite(counted(toy_suite(seeds=(42,), categories=toy_suite().categories[1:]), built), tmp_path)
    # Of biscuit the first method is there; of candy it was lost; two shots are new.
    assert built == [(("PatchCore RGB",), 42), *[(("CFR", "PatchCore RGB"), 42)] * 3]
    assert Store(tmp_path).record()["categories"] == ["almond", "biscuit", "candy"]  # type: ignore[index]
    run_suite(toy_suite(), tmp_path)
    assert figures(tmp_path) == figures(whole)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": {"theta": 0.3}}, "theta (null, now 0.3)"),
        ({"size": 8, "settings": {"size": 8}}, "size (null, now 8)"),
        ({"rule": "first-k"}, 'rule ("rng42", now "first-k")'),
        ({"preset": "paper-mvtec3d"}, 'preset ("embedded", now "paper-mvtec3d")'),
        ({"methods": [Method("CFR", {"theta": 1.0})]}, "definition of CFR"),
        ({"categories": [toy_category("almond", normal=1)]}, "data of almond"),
    ],
)
def test_other_settings_or_data_are_refused(whole: Path, changes: dict, words: str) -> None:
    before = (whole / "run.json").read_bytes()
    with pytest.raises(InputError) as refused:
        run_suite(toy_suite(**changes), whole)
    assert words in str(refused.value)
    assert "--out" in str(refused.value)
    assert (whole / "run.json").read_bytes() == before


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    def second(sample: object) -> None:
        with pytest.raises(InputError, match="no other run"):
            run_suite(toy_suite(), tmp_path)

    one = toy_suite(trouble=second, methods=METHODS[:1], shots=(1,), seeds=(42,))
    assert len(run_suite(one, tmp_path)) == 3


@pytest.mark.parametrize(("keep", "count"), [("none", 0), ("first", 3 * 2), ("all", ALL)])
def test_maps_are_kept_as_asked(tmp_path: Path, keep: str, count: int) -> None:
    run_suite(toy_suite(keep=keep, pictures=keep == "first"), tmp_path)
    assert len(list(tmp_path.glob("evidence/*/*/*.safetensors"))) == count
    assert len(list(tmp_path.glob("pictures/*/*/*/contact_sheet.png"))) == (6 if keep == "first" else 0)
    store, key = Store(tmp_path), RunKey("candy", "CFR", 2, 42)
    evidence, images = store.evidence(key), store.images("candy")
    if keep == "none":
        assert evidence is images is None
        built: list = []
        run_suite(counted(toy_suite(), built), tmp_path)  # kept after all: those runs are computed again
        assert len(built) == 6
        evidence, images = store.evidence(key), store.images("candy")
    assert evidence is not None
    assert images is not None
    result = store.result(key)
    assert evidence.names == images.names == tuple(row.name for row in result.images)
    scores = evidence.score_map.astype(np.float64).max(axis=(1, 2))
    assert (scores[2:] > 3 * scores[:2].max()).all()  # red squares
    assert (evidence.threshold, evidence.pixel_threshold) == (72.0, 72.0)
    truth = images.truth == 1
    assert not truth[:2].any()
    assert np.array_equal(evidence.replaced.astype(bool)[2:], truth[2:])
    assert images.rgb[truth].mean(axis=0) == pytest.approx([200, 30, 30])
    assert images.depth[evidence.valid == 1].astype(float) == pytest.approx(0.5, abs=0.01)
    assert not images.depth[evidence.valid == 0].any()


def until_killed(folder: Path) -> None:
    run_suite(toy_suite(delay=0.01), folder)


def test_killed_at_any_moment_a_rerun_has_the_same_table(tmp_path: Path, whole: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toy_suite"])
    moment = random.Random(0)
    waits = [("results", 1), ("results", 7), *[("seconds", moment.uniform(0.02, 0.4)) for _ in range(5)]]
    seen = []
    for kind, amount in waits:
        process = context.Process(target=until_killed, args=(tmp_path,))
        process.start()
        deadline = time.monotonic() + 60
        begun = time.monotonic()
        while time.monotonic() < deadline and process.is_alive():
            done = len(list(tmp_path.glob("results/*/*/[!.]*.json")))
            if (done >= amount) if kind == "results" else (time.monotonic() - begun > amount):
                break
            time.sleep(0.002)
        process.kill()
        process.join()
        seen.append(process.exitcode)
    assert seen[:2] == [-signal.SIGKILL] * 2
    assert len(list(tmp_path.glob("results/*/*/[!.]*.json"))) >= 7
    run_suite(toy_suite(), tmp_path)
    assert figures(tmp_path) == figures(whole)
    assert (tmp_path / "results.csv").read_bytes().count(b"\n") == ALL + 2 * 12 + 1
    assert not list(tmp_path.glob("results/**/.*.tmp"))


def broken(path: Path):
    raise InputError(str(path), "an intact point cloud file", "one that cannot be decoded")


def with_broken(split: str, index: int):
    """A toy category with one sample that cannot be read."""
    category, path = toy_category(normal=2, defective=2), Path(f"/data/toy/{split}/{index}.tiff")
    sources = list(getattr(category, split))
    old = sources[index]
    sources[index] = SampleSource(old.name, partial(broken, path), old.defect, (path,))
    return replace(category, **{split: tuple(sources)})


def test_a_broken_sample_is_named_and_skipped_only_when_asked(tmp_path: Path) -> None:
    suite = toy_suite(categories=[toy_category("almond", normal=2, defective=2), with_broken("test", 1)])
    with pytest.raises(InputError, match=r"/data/toy/test/1\.tiff: expected an intact point cloud"):
        run_suite(suite, tmp_path)
    assert {row["category"] for row in figures(tmp_path)} == {"almond"}  # what is done is kept
    run_suite(replace(suite, skip_bad=True), tmp_path)
    rows = [row for row in figures(tmp_path) if row["category"] == "toy"]
    assert len(rows) == 8
    for row in rows:
        assert row["skipped"] == ["test/good/001"]
        assert [image["name"] for image in row["images"]] == ["test/good/000", "test/red/000", "test/red/001"]
        assert (row["normal"], row["anomalous"]) == (1, 2)
    assert "toy: 1 sample could not be read: test/good/001" in (tmp_path / "results.txt").read_text()


def test_a_broken_training_sample_gives_way_to_the_next(tmp_path: Path) -> None:
    suite = toy_suite(categories=[with_broken("train", 1)], rule="first-k", shots=(2,), seeds=(0,))
    with pytest.raises(InputError, match=r"train/1\.tiff"):
        run_suite(suite, tmp_path)
    (row, _) = run_suite(replace(suite, skip_bad=True), tmp_path)
    assert row.training_samples == ("train/good/000", "train/good/002")
    assert row.skipped == ("train/good/001",)
    with pytest.raises(InputError, match="shots: expected 5 training samples that can be read, got"):
        run_suite(replace(suite, shots=(5,), skip_bad=True), tmp_path / "other")


def test_an_unusable_sample_is_named_by_its_file(tmp_path: Path) -> None:
    def refused():
        raise InputError("xyz of sample 'test/good/001'", "at least one valid point", "none")

    category, path = toy_category(normal=2), Path("/data/toy/001.png")
    test = (replace(category.test[0], load=refused, files=(path,)), *category.test[1:])
    with pytest.raises(InputError, match=r"^/data/toy/001\.png: .*at least one valid point"):
        run_suite(toy_suite(categories=[replace(category, test=test)]), tmp_path)


def test_a_full_disk_is_one_clear_error_and_what_is_done_is_kept(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, real = [False], os.replace

    def replacing(source, target) -> None:
        if full[0] or len(list(tmp_path.glob("results/*/*/[!.]*.json"))) >= 5:
            full[0] = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replacing)
        with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
            run_suite(toy_suite(), tmp_path)
    assert len(Store(tmp_path).keys()) == 5
    assert not list(tmp_path.rglob("*.tmp"))
    run_suite(toy_suite(), tmp_path)
    assert figures(tmp_path) == figures(whole)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot write"):
        run_suite(toy_suite(), tmp_path / "out")


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("kept")
    with pytest.raises(OutputError, match="cannot write into"):
        run_suite(toy_suite(), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "kept"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shots": (9,)}, "at most 5"),
        ({"methods": ()}, "methods: expected at least one"),
        ({"categories": []}, "categories: expected at least one"),
        ({"keep": "some"}, "--keep-maps"),
    ],
)
def test_what_is_impossible_fails_before_anything_is_built(tmp_path: Path, changes: dict, words: str) -> None:
    built: list = []
    with pytest.raises(InputError, match=words):
        run_suite(counted(toy_suite(**changes), built), tmp_path)
    assert built == []
    assert ToyMethods(METHODS, 0).names == ("CFR", "PatchCore RGB")
