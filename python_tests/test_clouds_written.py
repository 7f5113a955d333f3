"""Clouds of results: they read back as they were, here and in another library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plyfile import PlyData
from toy_detector import ToyDetector, toy_sample
from toy_suite import toy_suite

from cfr_fast.data import read_xyz
from cfr_fast.data.ply import read_ply
from cfr_fast.data.ply_write import write_ply
from cfr_fast.errors import InputError, OutputError
from cfr_fast.evaluation import overlay, write_cloud
from cfr_fast.evaluation.suite import run_suite


def scene(height: int, width: int, missing: float, seed: int = 0):
    """Points (with zeros and NaN where missing), colours, scores, and where there is a point."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(0.2, 0.6, (height, width, 3)).astype(np.float32)
    there = rng.random((height, width)) >= missing
    xyz[~there] = 0
    xyz[~there & (rng.random((height, width)) < 0.5), 1] = np.nan
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return xyz, rgb, rng.random((height, width)).astype(np.float32), there


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    missing=st.sampled_from([0, 0.3, 1]),
    seed=st.integers(0, 99),
)
def test_any_cloud_comes_back(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, missing: float, seed: int
) -> None:
    xyz, rgb, score, there = scene(height, width, missing, seed)
    path = tmp_path_factory.mktemp("cloud") / "a.ply"
    write_ply(path, xyz, rgb, {"score": score, "x_2": -score})
    found = read_ply(path)
    assert found.shape == xyz.shape
    assert np.array_equal(found, np.where(there[..., None], xyz, 0))
    content = PlyData.read(path)
    vertices = content["vertex"]
    assert [content.text, content.byte_order, len(vertices)] == [False, "<", there.sum()]
    for number, axis in enumerate("xyz"):
        assert np.array_equal(vertices[axis], xyz[there][:, number])
    for number, color in enumerate(("red", "green", "blue")):
        assert np.array_equal(vertices[color], rgb[there][:, number])
    assert np.array_equal(vertices["scalar_score"], score[there])
    assert np.array_equal(vertices["scalar_x_2"], -score[there])
    assert content.obj_info == [f"num_cols {width}", f"num_rows {height}"]
    cells = [list(cell) for cell in content["range_grid"]["vertex_indices"]]
    numbers = iter(range(there.sum()))
    assert cells == [[next(numbers)] if here else [] for here in there.ravel()]


def test_a_result_has_the_colours_of_its_overlay_or_photo(tmp_path: Path) -> None:
    sample = toy_sample("test/red/000", "red")
    result = ToyDetector().predict(sample)
    drawn = overlay(sample.rgb, result.anomaly_map, result.mask, result.pixel_threshold)
    assert result.mask.any()
    for colors, image in (("score", drawn), ("photo", sample.rgb)):
        path = tmp_path / f"{colors}.ply"
        write_cloud(path, sample, result, colors)
        assert np.array_equal(read_xyz(path), sample.xyz)
        vertices = PlyData.read(path)["vertex"]
        shown = np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1)
        assert np.array_equal(shown, image[sample.valid])
        assert np.array_equal(vertices["scalar_score"], result.anomaly_map[sample.valid])
    with pytest.raises(InputError, match="colors: expected one of score, photo, got 'heat'"):
        write_cloud(tmp_path / "a.ply", sample, result, "heat")


def test_a_benchmark_writes_the_clouds_of_the_runs_that_it_keeps(tmp_path: Path) -> None:
    suite = toy_suite(clouds="photo", shots=(1,))
    run_suite(suite, tmp_path)
    found = sorted(path.relative_to(tmp_path / "clouds").as_posix() for path in tmp_path.rglob("*.ply"))
    names = [f"test_{kind}_{number:03d}.ply" for kind in ("good", "red") for number in range(2)]
    assert found == [
        f"{category}/cfr/1-shot_seed-42/{name}"
        for category in ("almond", "biscuit", "candy")
        for name in names
    ]
    sample = suite.categories[0].test[2].load()
    assert np.array_equal(read_xyz(tmp_path / "clouds" / found[2]), sample.xyz)
    with pytest.raises(InputError, match="--clouds"):
        toy_suite(clouds="heat")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"xyz": np.zeros((3, 4), np.float32)}, r"xyz for .*a.ply: expected float \[H, W, 3\]"),
        ({"xyz": np.zeros((3, 4, 3), np.int32)}, "xyz for"),
        ({"xyz": np.zeros((0, 4, 3), np.float32)}, "at least one pixel"),
        ({"xyz": np.full((3, 4, 3), np.inf, np.float32)}, "finite coordinates"),
        ({"rgb": np.zeros((3, 4, 3), np.float32)}, r"rgb for .*: expected uint8 \[3, 4, 3\]"),
        ({"rgb": np.zeros((4, 3, 3), np.uint8)}, "rgb for"),
        (
            {"scalars": {"score": np.zeros((4, 3), np.float32)}},
            r"scalar 'score' for .*: expected float \[3, 4\]",
        ),
        ({"scalars": {"my score": np.zeros((3, 4), np.float32)}}, "letters, digits and underscores"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict, words: str) -> None:
    xyz, rgb, score, _ = scene(3, 4, 0.2)
    with pytest.raises(InputError, match=words):
        write_ply(tmp_path / "a.ply", **{"xyz": xyz, "rgb": rgb, "scalars": {"score": score}, **change})
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_ply(tmp_path / "taken" / "a.ply", *scene(3, 4, 0.2)[:2])


def test_broken_grids_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    xyz, rgb, *_ = scene(3, 4, 0.3)
    xyz[-1, -1] = 0  # so that the last byte is the length of a list
    write_ply(path, xyz, rgb)
    intact = path.read_bytes()
    lists = b"list uchar int"
    broken = [intact[:-cut] for cut in range(1, 40)]
    broken += [intact.replace(lists, other) for other in (b"list uchar float", b"list float int")]
    broken.append(intact.replace(lists, b"list char int")[:-1] + b"\xff")  # a length of -1
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.ply"):
            read_ply(path)
