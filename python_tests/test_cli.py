"""The command line, run in this process: outputs, exit codes, one-line errors."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cfr_fast import CFR
from cfr_fast.cli import main
from cfr_fast.data import read_xyz

FAST = [
    "--preset",
    "classic",
    "--size",
    "48",
    "--set",
    "mapper_epochs=5",
    "attention_epochs=3",
    "shot_views=1",
    "calibration_views=2",
]


@pytest.fixture(scope="module")
def sweets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A procedural set on disk, written by the command."""
    out = tmp_path_factory.mktemp("synth") / "sweets"
    arguments = ["synth", "--out", str(out), "--category", "cookie", "--train", "2", "--good", "2"]
    assert main([*arguments, "--defective", "1", "--size", "80"]) == 0
    return out


@pytest.fixture(scope="module")
def model(sweets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "cookie.safetensors"
    assert main(["fit", "--data", str(sweets), "--category", "cookie", "-o", str(path), *FAST]) == 0
    return path


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str) -> None:
    """The command ends with code 2 and one line on standard error that has all `words`."""
    capsys.readouterr()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(lines(err)) == 1, err
    for word in words:
        assert word in err
    assert "Traceback" not in err


def test_predict_writes_everything(model: Path, sweets: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["predict", str(model), str(sweets / "cookie" / "test" / "hole"), "-o", str(out)]) == 0
    rows = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
    scores = json.loads((out / "scores.json").read_text())
    assert len(rows) == len(scores) == 1
    assert float(rows[0]["score"]) == scores[0]["score"]
    files = scores[0]["files"]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*files.values(), "scores.csv", "scores.json"]
    )
    assert np.asarray(Image.open(out / files["overlay"])).shape == (80, 80, 3)
    mask = np.asarray(Image.open(out / files["mask"]))
    found = np.load(out / files["map"])
    assert mask.shape == found.shape == (80, 80)
    assert set(np.unique(mask)) <= {0, 255}
    assert (mask > 0).any() == scores[0]["label"]


def test_predict_json_and_tiff(
    model: Path, sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = next((sweets / "cookie" / "test" / "good" / "rgb").iterdir())
    capsys.readouterr()
    assert main(["predict", str(model), str(file), "-o", str(tmp_path), "--maps", "tiff", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["files"]["map"].endswith(".tiff")
    found = tifffile.imread(tmp_path / entry["files"]["map"])
    assert (found.shape, found.dtype) == ((80, 80), np.float32)


@pytest.mark.parametrize("colors", [[], ["photo"]])
def test_predict_writes_clouds_when_asked_to(
    model: Path, sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], colors: list[str]
) -> None:
    file = next((sweets / "cookie" / "test" / "hole" / "rgb").iterdir())
    arguments = ["predict", str(model), str(file), "-o", str(tmp_path), "--json", "--clouds", *colors]
    capsys.readouterr()
    assert main(arguments) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    points = read_xyz(file.parent.parent / "xyz" / f"{file.stem}.tiff")
    assert entry["files"]["cloud"].endswith(".ply")
    assert np.array_equal(read_xyz(tmp_path / entry["files"]["cloud"]), points)
    (row,) = csv.DictReader((tmp_path / "scores.csv").read_text().splitlines())
    assert row["cloud"] == entry["files"]["cloud"]


def test_fit_from_files_and_from_named_samples(
    sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rgb = sorted((sweets / "cookie" / "train" / "good" / "rgb").iterdir())
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    assert main(["fit", str(rgb[1]), "-o", str(first), *FAST]) == 0
    capsys.readouterr()
    named = [
        "fit",
        "--data",
        str(sweets / "cookie"),
        "--samples",
        rgb[1].stem,
        "-o",
        str(second),
        "--json",
        *FAST,
    ]
    assert main(named) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == [f"train/good/{rgb[1].stem}"]
    file = str(next((sweets / "cookie" / "test" / "dent" / "rgb").iterdir()))
    scores = []
    for path in (first, second):
        assert main(["predict", str(path), file, "-o", str(tmp_path / "out"), "--json"]) == 0
        scores.append(json.loads(capsys.readouterr().out)[0]["score"])
    assert scores[0] == scores[1]


def test_options_win_over_the_preset(sweets: Path, tmp_path: Path) -> None:
    file = str(next((sweets / "cookie" / "train" / "good" / "rgb").iterdir()))
    out = tmp_path / "model.safetensors"
    preset = ["--preset", "paper-mvtec3d", "--rgb", "classic", "--xyz", "classic"]
    assert main(["fit", file, "-o", str(out), *FAST, *preset]) == 0
    found = CFR.load(out).settings
    assert (found.theta, found.seed, found.bank_background) == (0.4, 115, True)
    assert (found.rgb, found.size, found.mapper_epochs) == ("classic", 48, 5)


def test_evaluate_writes_tables_and_pictures(
    sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "evaluate",
        "--data",
        str(sweets),
        "--shots",
        "1",
        "2",
        "--seeds",
        "42",
        "0",
        "-o",
        str(tmp_path),
    ]
    assert main([*arguments, *FAST]) == 0
    shown = capsys.readouterr().out
    assert "mask only" in shown
    assert "AUPRO" in shown
    content = json.loads((tmp_path / "results.json").read_text())
    assert {(r["shots"], r["seed"]) for r in content["results"]} == {(1, 42), (1, 0), (2, 42), (2, 0)}
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert {row["method"] for row in rows} == {"CFR", "mask only", "random"}
    pictures = list((tmp_path / "pictures" / "cookie" / "cfr" / "2-shot_seed-42").glob("*.png"))
    assert len(pictures) == 7 + 1  # a panel each, and the sheet


def test_prepare_is_resumable(sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["prepare", "--data", str(sweets), "--out", str(tmp_path / "prepared"), "--json"]
    counts = []
    for _ in range(2):
        capsys.readouterr()
        assert main(arguments) == 0
        (entry,) = json.loads(capsys.readouterr().out)
        counts.append((entry["written"], entry["skipped"]))
    assert counts[0][0] == counts[1][1] > 0
    assert counts[0][1] == counts[1][0] == 0


def test_info_lists_every_op(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["op"] for row in found["ops"]} == {
        "bank_attention",
        "confidence_filter",
        "confidence_filter_padded",
        "farthest_point_sample",
        "geglu_map",
        "interpolate_tokens",
        "knn",
        "replace_and_score",
        "three_nn",
        "topk_attention",
        "topk_cosine",
        "topk_interpolated",
    }
    assert all(row["backend"] in ("prebuilt", "jit", "reference") and row["reason"] for row in found["ops"])
    assert {"classic", "timm:<model>"} <= {row["name"] for row in found["extractors"]}
    assert main(["info"]) == 0
    assert "topk_cosine" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["fit"], ["predict", "model"], ["fit", "-o"]])
def test_wrong_usage_is_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: cfr" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["demo", "fit", "predict", "evaluate", "ablate", "import-authors", "prepare", "synth", "info"]
)
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"example:\n  cfr {command}" in capsys.readouterr().out


class TestBadInput:
    def fit(self, sweets: Path, tmp_path: Path, *more: str) -> list[str]:
        return ["fit", "--data", str(sweets), "-o", str(tmp_path / "m.safetensors"), *more]

    def test_no_such_category(self, sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        fails(capsys, self.fit(sweets, tmp_path, "--category", "cooky"), "cooky", "cookie")

    @pytest.mark.parametrize(("shots", "words"), [("0", "at least 1"), ("3", "at most 2")])
    def test_shots(
        self, sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shots: str, words: str
    ) -> None:
        fails(capsys, self.fit(sweets, tmp_path, "--shots", shots), "shots", words)
        evaluate = ["evaluate", "--data", str(sweets), "--shots", shots, "-o", str(tmp_path / "out")]
        fails(capsys, evaluate, "shots", words)

    def test_settings(self, sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        fails(capsys, self.fit(sweets, tmp_path, "--set", "thetta=1"), "thetta", "theta")
        fails(capsys, self.fit(sweets, tmp_path, "--set", "theta"), "--set", "NAME=VALUE")
        fails(capsys, self.fit(sweets, tmp_path, "--rgb", "clasic"), "clasic", "classic")
        assert not list(tmp_path.iterdir())

    def test_no_such_model(self, sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["predict", str(tmp_path / "none"), str(sweets), "-o", str(tmp_path / "out")]
        fails(capsys, arguments, "existing model file")

    def test_no_such_file(self, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        fails(capsys, ["predict", str(model), "nowhere.png", "-o", str(tmp_path / "out")], "nowhere.png")

    def test_output_among_the_samples(
        self, model: Path, sweets: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        test = sweets / "cookie" / "test"
        fails(capsys, ["predict", str(model), str(test), "-o", str(test / "out")], "--out", "outside of")
        assert not (test / "out").exists()

    def test_unwritable_output(
        self, model: Path, sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").touch()
        out = str(tmp_path / "file" / "out")
        fails(capsys, ["predict", str(model), str(sweets), "-o", out], "cannot write")
        fails(capsys, ["evaluate", "--data", str(sweets), "-o", out], "cannot write")
        fails(capsys, ["demo", "--out", out], "cannot write")
        fails(capsys, ["fit", "--data", str(sweets), "-o", out], "cannot write")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
    def test_read_only_folder(self, sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        tmp_path.chmod(0o500)
        fails(capsys, ["fit", "--data", str(sweets), "-o", str(tmp_path / "m")], "cannot write")

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
    def test_truncated_cloud_keeps_what_was_done(
        self, model: Path, sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float
    ) -> None:
        good = sorted((sweets / "cookie" / "test" / "good" / "rgb").iterdir())[0]
        broken = tmp_path / "part.png", tmp_path / "part.tiff"
        broken[0].write_bytes(good.read_bytes())
        cloud = (good.parent.parent / "xyz" / f"{good.stem}.tiff").read_bytes()
        broken[1].write_bytes(cloud[: int(share * len(cloud))])
        out = tmp_path / "out"
        fails(capsys, ["predict", str(model), str(good), str(broken[0]), "-o", str(out)], "part.tiff")
        assert len(json.loads((out / "scores.json").read_text())) == 1

    def test_traceback_only_on_request(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError("a mistake of ours")

        monkeypatch.setattr("cfr_fast.cli.info.collect", broken)
        assert main(["info"]) == 1
        assert "unexpected RuntimeError: a mistake of ours" in capsys.readouterr().err
        monkeypatch.setenv("CFR_FAST_TRACEBACK", "1")
        with pytest.raises(RuntimeError):
            main(["info"])
