"""The report: one page that needs nothing else, every figure on it, figures as files."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_store import CATEGORIES, NASTY, THRESHOLD, toy_images, write_toy_store

import cfr_fast
from cfr_fast.cli import main
from cfr_fast.errors import InputError, OutputError
from cfr_fast.evaluation import RunKey, Store, aupro
from cfr_fast.evaluation.confidence import LEGEND, MARK
from cfr_fast.evaluation.results import LIMITS, MASK_ONLY, NO_MODEL, RANDOM, WITH_INTERVAL, aupro_key
from cfr_fast.report import pictures, write_report
from cfr_fast.report.contents import Contents, read
from cfr_fast.report.curves import PERCENT, STORED, draw_curves
from cfr_fast.report.gallery import make_gallery
from cfr_fast.report.histograms import draw_histograms
from cfr_fast.report.page import render
from cfr_fast.report.style import COLUMNS, amount
from cfr_fast.report.svg import element

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Elements with their attributes and texts; refuses what is not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def json(self, name: str):
        """The content of the script element with this id."""
        found = iter(self.texts)
        scripts = [attributes for tag, attributes in self.elements if tag == "script"]
        contents = [text for tag, text in found if tag == "script"]
        return json.loads(contents[[script.get("id") for script in scripts].index(name)])

    def texts_of(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if tag in tags]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_toy_store(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def contents(store: Store) -> Contents:
    return read(store)


def page_of(contents: Contents, **options) -> str:
    gallery = make_gallery(contents, **options)
    return render(contents, draw_curves(contents), list(draw_histograms(contents)), gallery)


@pytest.fixture(scope="module")
def html(contents: Contents) -> str:
    return page_of(contents)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def pixels(data: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_the_table_has_every_number(contents, html, page):
    cells = [attributes["data-value"] for tag, attributes in page.elements if tag == "td" and attributes]
    wanted = [row.mean[metric] for row in contents.summaries for metric in COLUMNS]
    assert np.allclose([float(cell) for cell in cells], [value for value in wanted if value == value])
    cells = [
        [re.sub("<.*?>", "", part) for part in cell.split('<small class="interval">')]
        for cell in re.findall("<td.*?</td>", html)
    ]
    shown = iter(cells)
    for row in contents.summaries:
        for metric in COLUMNS:
            figure, *interval = next(shown)
            assert figure.removesuffix(MARK) == amount(row.mean[metric], row.deviation[metric])
            ends = row.intervals.get(metric)
            assert interval == ([] if ends is None else [f"{amount(ends[0])} to {amount(ends[1])}"])
    assert {"1", "2", "CFR", "CFM", MASK_ONLY, RANDOM} <= set(page.texts_of("th"))
    assert any(a.get("id") == "show-intervals" for tag, a in page.elements if tag == "input")


def test_results_from_before_there_were_intervals_are_shown(contents):
    """Also those without a random row."""
    runs = []
    for run in contents.runs:
        metrics = {name: row for name, row in run.result.metrics.items() if name != RANDOM}
        old = replace(run.result, metrics=metrics, intervals={}, gains={})
        runs.append(replace(run, result=old))
    older = replace(contents, runs=tuple(runs))
    html = page_of(older)
    page = Page(html)
    assert RANDOM not in page.texts_of("th", "li")
    assert 'class="interval"' not in html
    assert not any(a.get("id") == "show-intervals" for _, a in page.elements)
    assert MASK_ONLY in page.texts_of("th")
    assert {curve.method for curve in draw_curves(older)} == {"CFR", "CFM", MASK_ONLY}


def test_what_does_not_beat_the_mask_is_marked(contents, html):
    body = re.findall(r"<tbody>.*?</tbody>", html, re.S)[0]
    rows = [Page(row) for row in re.findall(r"<tr.*?</tr>", body, re.S)]
    floor = next(row.mean for row in contents.summaries if row.method == MASK_ONLY)
    for row, summary in zip(rows, contents.summaries, strict=False):
        marks = sum(tag == "abbr" for tag, _ in row.elements)
        assert marks == sum(metric in summary.not_above_mask for metric in COLUMNS)
        # Two categories, the interval of whose gains reaches 10 points down each.
        reach = {metric: max(0.1 / np.sqrt(2), summary.deviation[metric]) for metric in WITH_INTERVAL}
        low = [metric for metric in WITH_INTERVAL if summary.mean[metric] - reach[metric] <= floor[metric]]
        assert marks == (0 if summary.method in NO_MODEL else len(low))
    assert "abbr" in body
    assert f"{LEGEND}: " in html


def test_published_figures_stand_beside_measured_ones(contents):
    """Where categories are the benchmark's, and never as the best or as something to be marked."""
    runs = [
        replace(run, result=replace(run.result, dataset="mvtec3d"))
        for run in contents.runs
        if run.key.category == "bagel"
    ]
    html = page_of(replace(contents, runs=tuple(runs)))
    rows = re.findall(r'<tr class="published">.*?</tr>', html)
    assert len(rows) == 2  # CFR and CMDS-AD at 1 shot; nobody published 2
    for row, name, score, area in zip(rows, ("CFR", "CMDS-AD"), (74.0, 79.6), (92.3, 94.2), strict=True):
        assert f"{name} (published, all 10 categories)" in row
        assert f"{score}" in row
        assert f"{area}" in row
        assert "<b>" not in row
        assert "abbr" not in row
    assert "MVTec 3D-AD" in html


def test_the_head_says_what_was_evaluated(contents, page, html):
    terms = dict(zip(page.texts_of("dt"), page.texts_of("dd"), strict=True))
    assert terms["dataset"] == "toys & more"
    assert terms["versions"] == "torch 9.8.7"
    assert terms["choice of shots"] == "rng42"
    assert (terms["shots"], terms["seeds"], terms["methods"]) == ("1, 2", "0, 1", "CFR, CFM")
    assert terms["test images"] == "6 good, 8 anomalous"
    assert terms["last result"].startswith(f"{contents.written:%Y-%m-%d}")
    (best,) = (row for row in contents.summaries if (row.method, row.shots) == ("CFR", 2))
    shown = page.texts_of("strong")
    assert shown == [
        f"{amount(best.mean['detection_rate'])} %",
        f"{amount(best.mean['false_alarm_rate'])} %",
        amount(best.mean["i_auroc"]),
        amount(best.mean["aupro_30_exact"]),
    ]


def test_every_category_has_its_bars(contents, page):
    drawn = {float(a["data-value"]) for tag, a in page.elements if tag == "rect"}
    for run in contents.runs:
        runs = contents.of(run.key.method, run.key.shots, run.key.category)
        for metric in ("i_auroc", "p_auroc", "aupro_30_exact", "aupro_5_exact"):
            values = [other.result.metrics[run.key.method][metric] for other in runs]
            assert any(np.isclose(value, np.mean(values)) for value in drawn)
            assert amount(float(np.mean(values)), float(np.std(values, ddof=1))) in page.texts_of("text")


def test_the_page_needs_nothing_else(html, page):
    outside = re.compile(r"(https?:)?//|@import|url\(|fetch\(|XMLHttp|WebSocket|import\(|sendBeacon")
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "srcset", "data", "poster", "style"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
        assert not any(name.startswith("on") for name in attributes)
    for tag in ("style", "script"):
        for text in page.texts_of(tag):
            code = (
                "" if text.startswith(("{", "[")) else re.sub(r"(^|\s)// .*", "", text)
            )  # no data, no comments
            assert not outside.search(code), outside.search(code)
    assert "$" not in re.sub(r"<script.*?</script>", "", html, flags=re.S).replace(NASTY[-4:], "")


def test_names_are_escaped(html, page):
    assert NASTY not in html
    assert html.count("<script") == 2 + len(CATEGORIES)  # facts, pixels of each category, and the program
    assert not any(tag == "b" and text.startswith("&") for tag, text in page.texts)
    facts = page.json("gallery-facts")
    assert [entry["name"] for entry in facts["categories"]] == list(CATEGORIES)
    assert {NASTY, "red", "good"} == {image["defect"] for image in facts["images"]}
    assert CATEGORIES[1] in " ".join(page.texts_of("figcaption", "dd"))
    assert element("p", "x", title='a"<b>', data_key=1, hidden=False) == (
        '<p title="a&quot;&lt;b&gt;" data-key="1">x</p>'
    )


def test_pictures_on_the_page_are_those_of_the_store(store, page):
    facts = page.json("gallery-facts")
    assert facts["methods"] == ["CFR", "CFM"]
    for index, category in enumerate(CATEGORIES):
        images, rows = store.images(category), page.json(f"pixels-{index}")
        own = [image for image in facts["images"] if image["category"] == index]
        assert [image["name"] for image in own] == list(images.names)
        for place, (row, image) in enumerate(zip(rows, own, strict=True)):
            assert np.abs(pixels(row["rgb"]).astype(int) - images.rgb[place]).mean() < 20
            assert np.array_equal(pixels(row["depth"]) == 0, images.depth[place] == 0)
            truth = images.truth[place] == 1
            assert (row["truth"] is None) == (not truth.any())
            assert row["truth"] is None or np.array_equal(pixels(row["truth"]) != 0, truth)
            for column, method in enumerate(facts["methods"]):
                evidence = store.evidence(RunKey(category, method, 2, 0))
                setting = facts["categories"][index]["runs"][column]
                level = pixels(row["maps"][column]).astype(float)
                wanted = 255 * np.sqrt(evidence.score_map[place].astype(float) / setting["scale"])
                assert np.abs(level - wanted).max() <= 0.51
                replaced = row["replaced"][column]
                assert (replaced is None) == (method == "CFM")
                if replaced:
                    assert np.array_equal(pixels(replaced) != 0, evidence.replaced[place] == 1)
                verdict = image["verdicts"][column]
                assert verdict["label"] == (verdict["score"] > THRESHOLD)


def test_unknown_truth_and_missing_depth_are_said(tmp_path):
    store = write_toy_store(tmp_path, seeds=(0,), shots=(1,))
    images = toy_images("bagel")
    truth, depth = images.truth.copy(), images.depth.copy()
    truth[4], depth[4] = 255, 0
    store.write_images("bagel", replace(images, truth=truth, depth=depth))
    contents = read(store)
    image = make_gallery(contents).facts["images"][4]
    assert image["truth"] == "unknown"
    assert image["depth"] is None
    # Pixel curves need the truth of every image.
    drawn = draw_curves(contents)
    assert {curve.from_maps for curve in drawn if curve.category == "bagel"} == {False}
    assert {curve.from_maps for curve in drawn if curve.category == CATEGORIES[1]} == {True}


def test_levels_keep_low_scores_fine_and_survive_nan():
    values = np.array([[0.0, 0.01, 1.0], [4.0, -1.0, np.nan]])
    assert pixels(pictures.levels(values, 4.0)).tolist() == [[0, 13, 128], [255, 0, 0]]
    shade, span = pictures.depth(np.array([[0.4, 0.5, 0.0, np.nan]]))
    assert pixels(shade).tolist() == [[255, 1, 0, 0]]
    assert span == pytest.approx((0.401, 0.499))


def test_the_number_of_images_is_bounded(contents):
    everything = make_gallery(contents)
    assert (everything.shown, everything.total, everything.each) == (14, 14, None)
    one = make_gallery(contents, each=1)
    assert (one.shown, one.each) == (6, 1)
    assert [image["name"][-3:] for image in one.facts["images"]] == ["000"] * 6
    size = len(json.dumps(everything.pixels))
    less = make_gallery(contents, budget=int(0.9 * size))
    assert less.each == 2
    assert less.shown == 12
    assert len(json.dumps(less.pixels)) < 0.9 * size
    assert make_gallery(contents, budget=1).each == 1
    assert "12 of 14 test images" in page_of(contents, budget=int(0.9 * size))
    only = make_gallery(contents, methods=["cfm"], shots=1)
    assert only.facts["methods"] == ["CFM"]
    assert only.shots == 1
    for options, word in (({"each": 0}, "images"), ({"methods": ["x"]}, "CFR, CFM"), ({"shots": 3}, "1, 2")):
        with pytest.raises(InputError, match=word):
            make_gallery(contents, **options)


def test_curves_come_from_maps(contents, store):
    drawn = draw_curves(contents)
    assert len(drawn) == 2 * 4 * 3  # shots; two methods and two without; two categories and their mean
    for curve in drawn:
        assert curve.limits == PERCENT
        if curve.category is None:
            parts = [c for c in drawn if (c.method, c.shots) == (curve.method, curve.shots) and c.category]
            assert np.allclose(curve.values, np.mean([part.values for part in parts], axis=0))
            continue
        own = "CFR" if curve.method in NO_MODEL else curve.method
        metrics = store.result(RunKey(curve.category, own, curve.shots, 0)).metrics[curve.method]
        for limit in LIMITS:
            at = curve.values[PERCENT.index(limit)]
            assert at == pytest.approx(metrics[aupro_key(limit, None)], abs=1e-9)
    curve = next(curve for curve in drawn if curve.method == "CFR" and curve.category == "bagel")
    evidence, truth = store.evidence(RunKey("bagel", "CFR", 1, 0)), store.images("bagel").truth
    assert curve.values[49] == pytest.approx(aupro(evidence.map.astype(np.float32), truth, 0.5))


def test_the_page_says_whose_maps_the_curves_are_of(html):
    assert "Solid lines are of seed 0 alone" in html
    assert "Dashed lines" not in html


def test_without_maps_the_page_says_so(tmp_path):
    contents = read(write_toy_store(tmp_path, kept=False))
    assert make_gallery(contents) is None
    drawn = draw_curves(contents)
    assert {curve.limits for curve in drawn} == {STORED}
    html = page_of(contents)
    Page(html)
    limits = "the limits stored with the results (1, 5, 10 and 30 %)"
    assert f"Dashed lines join {limits}: of CFR, CFM, mask only, random, no maps" in html
    assert "Solid lines" not in html
    assert "there is no picture to show" in html
    assert "gallery-facts" not in re.sub(r"<script>.*?</script>", "", html, flags=re.S)


def test_histograms_count_every_image(contents):
    drawn = list(draw_histograms(contents))
    assert len(drawn) == 2 * 2 * 2
    for entry in drawn:
        rows = entry.run.result.images
        assert (entry.normal.sum(), entry.anomalous.sum()) == (3, 4)
        assert entry.threshold == THRESHOLD
        for kind, counts in ((False, entry.normal), (True, entry.anomalous)):
            above = sum(row.score >= entry.edges[12] for row in rows if row.anomalous == kind)
            assert counts[12:].sum() == above


def test_a_model_without_threshold_is_drawn(tmp_path):
    store = write_toy_store(tmp_path, seeds=(0,), shots=(1,), methods=("CFR",))
    runs = []
    for run in read(store).runs:
        rows = tuple(replace(row, threshold=float("inf"), label=False) for row in run.result.images)
        runs.append(replace(run, result=replace(run.result, images=rows)))
        evidence = store.evidence(run.key)
        store.write_evidence(run.key, replace(evidence, threshold=np.inf, pixel_threshold=np.inf))
    contents = replace(read(store), runs=tuple(runs))
    settings = [entry["runs"][0] for entry in make_gallery(contents).facts["categories"]]
    assert [setting["threshold"] for setting in settings] == [None, None]
    Page(page_of(contents))


def test_report_writes_page_and_figures_and_nothing_else(store, tmp_path, capsys):
    out = tmp_path / "new" / "report"
    assert main(["report", str(store.folder), "-o", str(out), "--images", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images_shown"], told["images"]) == (6, 14)
    names = {"bars", "aupro", "scores_cfr", "scores_cfm"}
    wanted = {f"{name}_{shots}-shot.{kind}" for name in names for shots in (1, 2) for kind in ("png", "pdf")}
    assert {path.name for path in (out / "figures").iterdir()} == wanted
    assert sorted(Path(path).name for path in told["figures"]) == sorted(wanted)
    assert sorted(path.name for path in out.iterdir()) == ["figures", "index.html"]
    for path in (out / "figures").iterdir():
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF-")
        else:
            assert len(np.unique(np.asarray(Image.open(path).convert("L")))) > 20
    Page((out / "index.html").read_text())


def test_errors_are_one_line_and_leave_what_was_there(store, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder in ("missing", "empty"):
        assert main(["report", str(tmp_path / folder), "-o", str(tmp_path / "out")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    blocked = tmp_path / "report"
    blocked.write_text("in the way")
    with pytest.raises(OutputError, match="report"):
        write_report(store.folder, blocked)
    assert blocked.read_text() == "in the way"
    page = tmp_path / "old" / "index.html"
    page.parent.mkdir()
    page.write_text("old")
    with pytest.raises(InputError, match="methods"):
        write_report(store.folder, page.parent, methods=["x"])
    assert page.read_text() == "old"


def test_lower_rooms_do_not_know_the_report():
    root = Path(cfr_fast.__file__).parent
    for path in root.rglob("*.py"):
        room = path.relative_to(root).parts[0]
        if room in ("report", "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith("cfr_fast.report") for name in names), path
