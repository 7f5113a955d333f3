"""Tables, files and pictures of results."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image
from rich.console import Console
from toy_detector import ToyDetector, toy_category, toy_sample

from cfr_fast.errors import InputError, OutputError
from cfr_fast.evaluation import (
    CategoryResult,
    contact_sheet,
    evaluate,
    file_stem,
    overlay,
    panel,
    print_results,
    verdict_table,
    write_map,
    write_png,
    write_results_csv,
    write_results_json,
    write_scores_csv,
    write_scores_json,
)
from cfr_fast.evaluation.colors import depth_image, heat, palette


@pytest.fixture(scope="module")
def results() -> list[CategoryResult]:
    categories = [toy_category("almond"), toy_category("biscuit")]
    return evaluate("toys", categories, ToyDetector, shots=(1, 2), seeds=(42, 0), size=16)


def judged(name="test/red/000", defect="red", **options):
    sample = toy_sample(name, defect, **options)
    return sample, ToyDetector().predict(sample)


def shown(results) -> str:
    text = io.StringIO()
    print_results(results, text)
    return text.getvalue()


def test_the_screen_says_which_thresholds(results):
    text = shown(results)
    assert "toys · 2 categories · 2 seeds · percent" in text
    for word in (
        "CFR",
        "mask only",
        "random",
        "95 % intervals over test images",
        "almond",
        "exact",
        "99",
        "30%",
        "50.0±0.0",
        "100.0",
    ):
        assert word in text
    assert "nan" not in text
    assert "—" in text
    assert "…" not in text
    assert "±" not in shown(results[:1])


def test_verdicts_are_a_table():
    console = Console(width=100, file=io.StringIO())
    console.print(verdict_table([judged("[red]a/b", "good")[1], judged()[1]]))
    (calm,) = [line.split() for line in console.file.getvalue().splitlines() if "[red]a/b" in line]
    (found,) = [line.split() for line in console.file.getvalue().splitlines() if "test/red/000" in line]
    assert calm[2:] == ["30", "normal", "25.0%"]
    assert found[2:] == ["30", "anomalous", "25.0%"]


def test_notes_are_shown_and_written_where_there_are_any(tmp_path):
    noted = replace(judged("a", "good")[1], notes=("first [note]", "second"))
    console = Console(width=120, file=io.StringIO())
    console.print(verdict_table([noted, judged()[1]]))
    text = console.file.getvalue()
    assert all(word in text for word in ("notes", "first [note]", "second"))
    for write, name in ((write_scores_csv, "scores.csv"), (write_scores_json, "scores.json")):
        write(tmp_path / name, [noted, judged()[1]])
    rows = list(csv.DictReader((tmp_path / "scores.csv").open(newline="")))
    assert [row["notes"] for row in rows] == ["first [note]; second", ""]
    content = json.loads((tmp_path / "scores.json").read_text())
    assert [row["notes"] for row in content] == [["first [note]", "second"], []]


def test_csv_has_a_row_for_every_method(results, tmp_path):
    write_results_csv(tmp_path / "new" / "results.csv", results)
    rows = list(csv.DictReader((tmp_path / "new" / "results.csv").open(newline="")))
    assert len(rows) == 3 * len(results) == 24
    first, second, third = rows[:3]
    assert (first["category"], first["method"], first["shots"], first["seed"]) == ("almond", "CFR", "1", "42")
    assert float(first["aupro_30_exact"]) == results[0].metrics["CFR"]["aupro_30_exact"]
    assert float(second["aupro_5_exact"]) == results[0].metrics["mask only"]["aupro_5_exact"]
    assert second["aupro_30_99"] == ""
    assert second["detection_rate"] == ""
    assert (second["method"], third["method"]) == ("mask only", "random")
    assert third["aupro_30_99"]
    for row, method in zip(rows[:3], results[0].metrics, strict=True):
        for metric, ends in results[0].intervals[method].items():
            assert (float(row[f"{metric}_low"]), float(row[f"{metric}_high"])) == ends
    assert first["training_samples"] == results[0].training_samples[0]
    assert first["normal"] == first["anomalous"] == "3"


def test_json_has_everything(results, tmp_path):
    write_results_json(tmp_path / "results.json", results)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["format"] == "cfr_fast.evaluation/1"
    assert content["versions"]["numpy"] == np.__version__
    assert [row["method"] for row in content["summary"]] == ["CFR", "mask only", "random"] * 2
    assert content["summary"][0]["intervals"]["i_auroc"] == [1.0, 1.0]
    assert content["results"][0]["gains"]["i_auroc"] == [0.5, 0.5]
    again = [CategoryResult.from_json(row) for row in content["results"]]
    assert [row.to_json() for row in again] == [row.to_json() for row in results]


def test_an_infinite_threshold_is_null_in_json(tmp_path):
    endless = replace(judged()[1], threshold=math.inf, label=False)
    write_scores_json(tmp_path / "scores.json", [endless])
    (row,) = json.loads((tmp_path / "scores.json").read_text())
    assert (row["threshold"], row["label"]) == (None, False)


def test_scores_are_escaped_and_complete(tmp_path):
    (_, good), (_, red) = judged('odd, "name"\n=x', "good"), judged()
    files = [{"overlay": tmp_path / "a.png"}, {"overlay": "b.png", "mask": "m,1.png"}]
    write_scores_csv(tmp_path / "scores.csv", [good, red], files)
    rows = list(csv.DictReader((tmp_path / "scores.csv").open(newline="")))
    assert rows[0]["name"] == 'odd, "name"\n=x'
    assert list(rows[0])[:5] == ["name", "score", "threshold", "label", "replaced_fraction"]
    assert [row["label"] for row in rows] == ["false", "true"]
    assert float(rows[1]["score"]) == red.score
    assert [row["mask"] for row in rows] == ["", "m,1.png"]
    write_scores_json(tmp_path / "scores.json", [good, red], files)
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content[1] == {
        "name": red.name,
        "score": red.score,
        "threshold": 30.0,
        "label": True,
        "replaced_fraction": 0.25,
        "notes": [],
        "files": {"overlay": "b.png", "mask": "m,1.png"},
    }
    with pytest.raises(InputError, match="files"):
        write_scores_csv(tmp_path / "scores.csv", [good, red], files[:1])


def test_an_unwritable_place_is_one_clear_error_and_leaves_nothing(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    image = np.zeros((4, 4, 3), np.uint8)
    for write, content in ((write_png, image), (write_results_json, []), (write_scores_csv, [])):
        with pytest.raises(OutputError, match="file"):
            write(blocked / "out.png", content)
    # A target that is a folder fails at the very last step; its temporary file must not stay.
    (tmp_path / "folder" / "x.png").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"x\.png"):
        write_png(tmp_path / "folder" / "x.png", image)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "x.png"]
    assert blocked.read_text() == "in the way"


def test_png_and_maps_come_back(tmp_path):
    rng = np.random.default_rng(0)
    rgb, mask = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), rng.random((5, 7)) < 0.5
    write_png(tmp_path / "rgb.png", rgb)
    write_png(tmp_path / "mask.png", mask)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "rgb.png")), rgb)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png")), mask * 255)
    scores = rng.random((5, 7)).astype(np.float32)
    for ending, read in ((".npy", np.load), (".tiff", tifffile.imread)):
        write_map(tmp_path / f"map{ending}", scores)
        assert np.array_equal(read(tmp_path / f"map{ending}"), scores)
    with pytest.raises(InputError, match=r"\.jpg"):
        write_map(tmp_path / "map.jpg", scores)
    for bad in (scores, rgb[..., :2], np.zeros((0, 3), np.uint8)):
        with pytest.raises(InputError, match="image"):
            write_png(tmp_path / "bad.png", bad)


def test_a_panel_has_four_pictures_and_follows_the_map():
    sample, result = judged(shape=(120, 160))
    image = panel(sample, result)
    height, width = image.shape[:2]
    assert image.dtype == np.uint8
    assert width == 4 * 160 + 3 * 4
    assert height > 120
    assert np.array_equal(image, panel(sample, result))
    hotter = replace(result, anomaly_map=result.anomaly_map + 20)
    moved = (panel(sample, hotter) != image).any(axis=2)
    assert moved.any()
    assert not moved[:, : 3 * 164].any()
    truth = panel(replace(sample, ground_truth=None), result)
    changed = np.flatnonzero((truth != image).any(axis=(0, 2)))
    assert 2 * 164 <= changed[0] <= changed[-1] < 3 * 164


@pytest.mark.parametrize("shape", [(500, 300), (12, 9), (9, 700)])
def test_panels_of_any_shape_are_bounded(shape):
    sample = toy_sample("x" * 400, "red", shape=(24, 32))
    rgb, xyz = np.zeros((*shape, 3), np.uint8), np.ones((*shape, 3), np.float32)
    sample = replace(sample, rgb=rgb, xyz=xyz, ground_truth=None)
    image = panel(sample, ToyDetector().predict(sample), side=200)
    assert image.shape[1] <= 4 * 200 + 3 * 4
    assert image.shape[0] <= 200 + 60


def test_one_colour_scale_for_all_images():
    calm, hot = np.full((4, 4), 3, np.float32), np.full((4, 4), 30, np.float32)
    assert heat(calm, 10).max() == pytest.approx(0.15)
    assert heat(np.full((4, 4), 10, np.float32), 10).max() == 0.5
    assert heat(hot, 10).min() == 1.0
    for nothing in (math.nan, math.inf, 0.0, -1.0):
        assert heat(calm, nothing).max() == 1.0
    assert heat(np.zeros((4, 4), np.float32), math.nan).max() == 0.0
    brightness = palette("inferno").astype(int).sum(axis=1)
    assert brightness[0] < brightness[128] < brightness[255]


def test_an_overlay_shows_where_it_is():
    sample, result = judged()
    plain = overlay(sample.rgb, result.anomaly_map * 0, None, 30.0)
    image = overlay(sample.rgb, result.anomaly_map, result.mask, result.threshold)
    assert image.shape == sample.rgb.shape
    difference = np.abs(image.astype(int) - plain).sum(axis=2)
    assert difference[sample.ground_truth].min() > 100
    assert np.median(difference[~sample.ground_truth]) < 20
    outlined = overlay(sample.rgb, result.anomaly_map, None, result.threshold)
    assert (outlined != image).any(axis=2)[result.mask].any()
    with pytest.raises(InputError, match="anomaly_map"):
        overlay(sample.rgb, result.anomaly_map[1:], None)
    with pytest.raises(InputError, match="mask"):
        overlay(sample.rgb, result.anomaly_map, result.mask[1:])


def test_depth_tells_near_far_and_missing_apart():
    xyz = np.zeros((40, 40, 3), np.float32)
    xyz[:, 10:, 2] = np.linspace(0.3, 0.6, 30)
    image = depth_image(xyz).astype(int).sum(axis=2)
    assert image[:, :10].max() < image[:, 10:].min()
    assert image[0, 12] > image[0, 38]
    assert len(np.unique(image[:, :10])) == 2
    assert depth_image(np.zeros((4, 4, 3), np.float32)).max() < 80


def test_contact_sheets():
    pictures = [np.full((10, 20, 3), 10 * index, np.uint8) for index in range(5)]
    sheet = contact_sheet(pictures, columns=2)
    assert sheet.shape == (3 * 18 - 8, 2 * 28 - 8, 3)
    assert (sheet[18:28, 28:48] == 30).all()
    assert contact_sheet(pictures[:1]).shape == (10, 20, 3)
    with pytest.raises(InputError, match="panels"):
        contact_sheet([])


def test_evaluation_draws_every_test_image(tmp_path):
    evaluate("toys", [toy_category(normal=1, defective=2)], ToyDetector, size=16, pictures=tmp_path)
    folder = tmp_path / "toy" / "1-shot_seed-42"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["contact_sheet.png", "test_good_000.png", "test_red_000.png", "test_red_001.png"]
    once = {path.name: path.read_bytes() for path in folder.iterdir()}
    evaluate("toys", [toy_category(normal=1, defective=2)], ToyDetector, size=16, pictures=tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == once


@pytest.mark.parametrize(
    ("name", "stem"),
    [("test/bent/003", "test_bent_003"), ("../../etc/x", "etc_x"), ("", "sample"), ("ü b.c", "ü_b.c")],
)
def test_file_stems_stay_inside_their_folder(name, stem):
    assert file_stem(name) == stem
