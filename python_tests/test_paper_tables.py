"""Tables in the paper's form: published rows beside measured ones, LaTeX, coverage, methods and ablation."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from toy_detector import ToyDetector, toy_category

from cfr_fast.cli import main
from cfr_fast.data import synthetic
from cfr_fast.errors import InputError
from cfr_fast.evaluation import CategoryResult, evaluate_category, print_results, summarise
from cfr_fast.evaluation.ablation import ablation_figure, ablation_methods
from cfr_fast.evaluation.latex import latex_table
from cfr_fast.evaluation.methods import METHODS, Method, SharedFeatures, methods_called
from cfr_fast.evaluation.published import CATEGORIES, with_published
from cfr_fast.evaluation.results import NO_MODEL, rows_of
from cfr_fast.evaluation.table import results_json
from cfr_fast.model import CFR

FAST = [
    "--preset",
    "classic",
    "--size",
    "32",
    "--set",
    "mapper_epochs=2",
    "attention_epochs=1",
    "shot_views=1",
    "calibration_views=1",
]


@pytest.fixture(scope="module")
def base() -> CategoryResult:
    return evaluate_category(toy_category("bagel"), 1, 42, ToyDetector, 16, dataset="mvtec3d")


@pytest.fixture(scope="module")
def sweets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("set") / "sweets"
    synthetic.write_dataset(out, categories=["cookie"], train=2, good=2, defective_per_type=1, size=64)
    return out


def shown(results) -> str:
    text = io.StringIO()
    print_results(results, text)
    return text.getvalue()


def test_published_rows_stand_beside_the_same_shots(base) -> None:
    results = [replace(base, shots=shots) for shots in (1, 2, 4)]
    rows = with_published(summarise(results))
    published = [(row.shots, row.method.split(" (")[0]) for row in rows if row.is_published]
    assert published == [(1, "CFR"), (1, "CMDS-AD"), (4, "CFR"), (4, "CMDS-AD")]
    assert [row.method for row in rows[:4]] == ["CFR", "mask only", "random", rows[3].method]
    four = next(row for row in rows if row.is_published and row.shots == 4)
    assert (four.mean["i_auroc"], four.mean["aupro_30_99"]) == pytest.approx((0.805, 0.942))
    assert math.isnan(four.mean["aupro_30_exact"])
    assert four.categories == CATEGORIES["mvtec3d"]
    text = shown(results)
    assert text.count("CFR (published, all 10 categories)") == 2
    assert "mvtec3d · 1 category · 1 seed" in text
    content = results_json(results)
    assert len(content["summary"]) == 9
    assert len(content["published"]) == 4


@pytest.mark.parametrize(
    "changes", [{"dataset": "procedural"}, {"dataset": "eyecandies"}, {"category": "my part"}, {"shots": 2}]
)
def test_nothing_published_stands_beside_another_set(base, changes) -> None:
    assert not any(row.is_published for row in with_published(summarise([replace(base, **changes)])))


def renamed(result: CategoryResult, method: str, **changes) -> CategoryResult:
    (old,) = set(result.metrics) - set(NO_MODEL)
    rows = {
        part: {method if name == old else name: row for name, row in getattr(result, part).items()}
        for part in ("metrics", "intervals")
    }
    return replace(result, **rows, **changes)


def test_rows_without_a_model_are_there_once_and_missing_categories_are_said(base) -> None:
    results = [
        base,
        renamed(base, "CFM"),
        replace(base, category="dowel"),
        renamed(base, "PatchCore RGB+3D", category="dowel"),
    ]
    assert [row.method for row in rows_of(results)] == [
        *("CFR", "CFM", *NO_MODEL, "CFR", "PatchCore RGB+3D", *NO_MODEL)
    ]
    labels = [row.label(2) for row in summarise(results)]
    assert labels == ["CFR", "CFM (1 of 2 categories)", "PatchCore RGB+3D (1 of 2 categories)", *NO_MODEL]


def test_latex_is_whole_and_escaped(base) -> None:
    results = [base, renamed(base, "bank 5% & θ_1"), replace(base, shots=2), replace(base, shots=2, seed=0)]
    text = latex_table(results)
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{rlrrrrrrrrrr}"
    assert lines[-1] == r"\end{tabular}"
    assert r"bank 5\% \& $\theta$\_1" in text
    assert text.count(r"\midrule") == 2
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 2 + (4 + 2) + 3
    assert all(line.replace(r"\&", "").count("&") == 11 for line in body[1:])
    assert r"100.0\,$\pm$\,0.0" in body[-3]
    assert "nan" not in text


def test_methods_by_name() -> None:
    assert [method.name for method in methods_called(["cfm", "patchcore", "patchcore-3d"])] == [
        *("CFM", "PatchCore RGB", "PatchCore 3D", "PatchCore RGB+3D")
    ]
    every = [name for name in METHODS if name != "cfr-paper"]  # the same as cfr without a calibrated score
    assert methods_called(["all", "cfr"]) == [METHODS[name] for name in every]
    assert len(every) == 7
    assert methods_called(["cfr-paper"])[0].changes == {"score": "discrepancy"}
    for names in (["cfrr"], []):
        with pytest.raises(InputError, match="--methods"):
            methods_called(names)
    with pytest.raises(
        InputError, match="method finer: expected settings after the extractors alone, got size"
    ):
        SharedFeatures([Method("finer", {"size": 64})], lambda changes: CFR(**changes))


def test_every_method_runs_on_the_same_features(sweets: Path, tmp_path: Path) -> None:
    """From the command line; each figure is that of the method run alone."""
    arguments = ["evaluate", "--data", str(sweets), "--no-pictures", "--keep-maps", "none", *FAST]
    assert main([*arguments, "--methods", "all", "-o", str(tmp_path / "all")]) == 0
    rows = list(csv.DictReader((tmp_path / "all" / "results.csv").read_text().splitlines()))
    assert [row["method"] for row in rows] == [
        *(method.name for method in methods_called(["all"])),
        *NO_MODEL,
    ]
    assert len({row["p_auroc"] for row in rows}) == 9
    for name, method in (("cfr-nearest", "CFR nearest"), ("cfm", "CFM"), ("patchcore-rgb", "PatchCore RGB")):
        assert main([*arguments, "--methods", name, "-o", str(tmp_path / name)]) == 0
        (alone,) = json.loads((tmp_path / name / "results.json").read_text())["results"]
        (shared,) = [row for row in rows if row["method"] == method]
        assert alone["metrics"][method]["aupro_30_exact"] == float(shared["aupro_30_exact"])
        assert alone["metrics"][method]["i_auroc"] == float(shared["i_auroc"])


def test_the_ablation_is_one_command(
    sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--shots", "1", "2", "--theta", "0.4", "0", "--bank", "0.05", "0.5", "--keep-maps", "none"]
    assert main(["ablate", "--data", str(sweets), "-o", str(tmp_path), *options, *FAST, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    names = [row["method"] for row in content["summary"] if row["shots"] == 1]
    assert names == ["CFR", "no retrieval", "theta 0", "theta 0.4", "bank 5%", "bank 50%", *NO_MODEL]
    replaced = {
        next(iter(row["metrics"])): {image["replaced_fraction"] for image in row["images"]}
        for row in content["results"]
    }
    assert replaced["no retrieval"] == {0.0}
    assert replaced["theta 0"] == {1.0}
    assert Image.open(tmp_path / "ablation.png").size[0] > 1000
    assert (tmp_path / "ablation.pdf").read_bytes().startswith(b"%PDF")
    results = [CategoryResult.from_json(row) for row in content["results"]]
    axes = ablation_figure(results).axes
    assert len(axes) == 6
    theta = axes[1].containers[0].lines[0]
    assert list(theta.get_xdata()) == [0, 0.4]
    expected = [row["mean"]["i_auroc"] for row in content["summary"] if row["shots"] == 1][2:4]
    assert list(theta.get_ydata()) == pytest.approx([100 * value for value in expected])


@pytest.mark.parametrize(("thetas", "banks", "words"), [([-1], [], "--theta"), ([], [0], "--bank")])
def test_an_ablation_out_of_range_is_refused(thetas, banks, words) -> None:
    with pytest.raises(InputError, match=words):
        ablation_methods(thetas, banks)


def test_a_corrupt_file_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.write_dataset(
        tmp_path / "set", categories=["cookie"], train=1, good=2, defective_per_type=1, size=64
    )
    cloud = next((tmp_path / "set" / "cookie" / "test" / "good" / "xyz").iterdir())
    cloud.write_bytes(cloud.read_bytes()[:300])
    arguments = ["evaluate", "--data", str(tmp_path / "set"), "-o", str(tmp_path / "out"), *FAST]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(cloud) in line
    assert main([*arguments, "--skip-bad"]) == 0
    assert f"cookie: 1 sample could not be read: test/good/{cloud.stem}" in capsys.readouterr().out
    (row,) = [r for r in csv.DictReader((tmp_path / "out/results.csv").open()) if r["method"] == "CFR"]
    assert (row["normal"], row["skipped"]) == ("1", "1")
    assert main([*arguments, "--skip-bad", "--size", "48"]) == 2
    assert "size (32, now 48)" in capsys.readouterr().err


def test_many_models_in_one_command(sweets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", "--data", str(sweets), "--category", "all", "-o", str(tmp_path), "--json", *FAST]
    fitted = []
    for _ in range(2):
        assert main(arguments) == 0
        fitted.append(json.loads(capsys.readouterr().out)["fitted"])
    assert fitted == [["cookie"], []]
    assert CFR.load(tmp_path / "cookie.cfr.safetensors").settings.size == 32
    assert main([*arguments, "--shots", "2"]) == 2
    assert "other shots" in capsys.readouterr().err
