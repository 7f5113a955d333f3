"""The report in a real browser: sliders move, filters filter, colours turn, a phone can read it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser, opened
from PIL import Image
from toy_store import CATEGORIES, NASTY, SIZE, write_toy_store

from cfr_fast.evaluation import RunKey, Store
from cfr_fast.report.contents import read
from cfr_fast.report.curves import draw_curves
from cfr_fast.report.gallery import make_gallery
from cfr_fast.report.histograms import draw_histograms
from cfr_fast.report.page import render


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_toy_store(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def report(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    contents = read(store)
    path = tmp_path_factory.mktemp("report") / "index.html"
    spread = list(draw_histograms(contents))
    path.write_text(render(contents, draw_curves(contents), spread, make_gallery(contents)))
    return path


@pytest.fixture(scope="module")
def page(chromium: Any, report: Path) -> Iterator[Any]:
    with opened(chromium, report, color_scheme="light") as page:
        yield page


@pytest.fixture
def fresh(page: Any) -> Any:
    page.reload()
    page.locator("#cards").scroll_into_view_if_needed()
    page.wait_for_selector(".card[data-drawn]")
    return page


def canvas(page: Any, index: int = 0) -> np.ndarray:
    """What a card's canvas shows: uint8 [h, w, 3]."""
    page.wait_for_timeout(80)  # the frame in which a change is drawn
    url = page.locator(".card canvas").nth(index).evaluate("canvas => canvas.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


def move(page: Any, slider: str, value: int) -> None:
    page.locator(slider).fill(str(value))  # sets it and sends its event


def select(page: Any, name: str, label: str) -> None:
    page.locator(f"#pick-{name}").select_option(label=label)


def names(page: Any) -> list[str]:
    return page.locator(".card .where").all_text_contents()


def live(page: Any) -> str:
    page.wait_for_timeout(80)
    return page.locator(".card .foot p").nth(1).text_content()


def test_the_threshold_slider_moves_the_outline_and_the_share(fresh, store):
    select(fresh, "order", "highest score first")
    select(fresh, "category", CATEGORIES[0])
    select(fresh, "defect", NASTY)
    fresh.wait_for_selector(".card[data-drawn]")
    assert fresh.locator("#threshold-value").text_content() == "0.5 (1 × calibrated)"
    images, evidence = store.images(CATEGORIES[0]), store.evidence(RunKey(CATEGORIES[0], "CFR", 2, 0))
    title = fresh.locator(".card h3").first.evaluate("node => node.firstChild.textContent")
    place = images.names.index(title)
    before = canvas(fresh)
    for step, threshold in ((0, 0.5), (-20, 0.125), (20, 2.0), (0, 0.5)):
        move(fresh, "#threshold", step)
        share = (evidence.score_map[place] > threshold).mean() * 100
        shown = live(fresh)
        assert shown.startswith(f"Above {threshold:g}: ")
        assert float(shown.split()[2]) == pytest.approx(share, abs=0.4)  # levels are rounded to 8 bits
        same = np.array_equal(canvas(fresh), before)
        assert same == (threshold == 0.5)
    assert "% of the defect" in shown
    fresh.locator("#threshold").focus()
    fresh.keyboard.press("ArrowRight")
    assert fresh.locator("#threshold-value").text_content() == "0.536 (1.07 × calibrated)"
    fresh.get_by_role("button", name="Reset").click()
    assert np.array_equal(canvas(fresh), before)


def test_the_opacity_slider_goes_from_photo_to_map(fresh, store):
    select(fresh, "category", CATEGORIES[0])
    select(fresh, "order", "name")
    for layer in ("found", "truth"):
        fresh.locator(f"#show-{layer}").uncheck()
    fresh.wait_for_selector(".card[data-drawn]")
    shown = {}
    for value in (0, 50, 100):
        move(fresh, "#opacity", value)
        shown[value] = canvas(fresh).astype(int)
        assert fresh.locator("#opacity-value").text_content() == f"{value} %"
    photo = store.images(CATEGORIES[0]).rgb[0].astype(int)
    scale = shown[0].shape[0] // SIZE
    middle = shown[0][scale // 2 :: scale, scale // 2 :: scale, :3][:SIZE, :SIZE]
    assert np.abs(middle.mean() - photo.mean()) < 4
    change = [np.abs(shown[a] - shown[b]).sum() for a, b in ((0, 50), (50, 100), (0, 100))]
    assert 0 < change[0] < change[2]
    assert 0 < change[1] < change[2]


def test_layers_are_switched_one_by_one(fresh):
    select(fresh, "defect", "red")
    fresh.wait_for_selector(".card[data-drawn]")
    before = canvas(fresh)
    for layer in ("#show-found", "#show-truth", "#show-replaced", "#on-depth"):
        fresh.locator(layer).click()
        assert not np.array_equal(canvas(fresh), before), layer
        fresh.locator(layer).click()
        assert np.array_equal(canvas(fresh), before), layer
    fresh.locator("#show-replaced").check()
    image = canvas(fresh).astype(int)
    assert ((image[..., 2] > image[..., 1] + 50) & (image[..., 1] > image[..., 0])).mean() > 0.01  # blue


def test_filters_show_what_they_say(fresh, store):
    facts = {}
    for category in CATEGORIES:
        for row in store.result(RunKey(category, "CFR", 2, 0)).images:
            kind = "correct" if row.label == row.anomalous else "alarm" if row.label else "missed"
            facts.setdefault(kind, []).append((category, row))
    status = fresh.locator("#count")
    missed, alarms = len(facts["missed"]), len(facts["alarm"])
    assert status.text_content().startswith(f"14 of 14 images: {missed} missed, {alarms} false alarms")
    for label, kind in (("missed", "missed"), ("false alarm", "alarm"), ("correct", "correct")):
        select(fresh, "verdict", label)
        wanted = [f"{category} · {row.defect}" for category, row in facts[kind]]
        assert sorted(names(fresh)) == sorted(wanted)
        assert set(fresh.locator(".card .tag").all_text_contents()) == {label}
    select(fresh, "verdict", "all")
    select(fresh, "defect", NASTY)
    assert len(names(fresh)) == 4
    assert all(text.endswith(f"· {NASTY}") for text in names(fresh))
    select(fresh, "category", CATEGORIES[1])
    assert names(fresh) == [f"{CATEGORIES[1]} · {NASTY}"] * 2
    select(fresh, "method", "CFM")
    select(fresh, "verdict", "correct")
    assert fresh.locator(".card").count() == 0
    assert status.text_content().startswith("0 of 14")


def test_order_is_by_score_or_by_name(fresh):
    def scores() -> list[float]:
        return [float(text) for text in fresh.locator(".card .foot b").all_text_contents()]

    assert scores() == sorted(scores(), reverse=True)
    select(fresh, "order", "lowest score first")
    assert scores() == sorted(scores())
    select(fresh, "order", "name")
    titles = fresh.locator(".card h3").all_text_contents()
    half = len(titles) // 2
    assert titles[:half] == sorted(titles[:half])
    assert len(set(names(fresh)[:half]) & set(names(fresh)[half:])) == 0


def test_charts_follow_their_choices(fresh):
    for section, key, label in (("categories", "metric", "P-AUROC"), ("limits", "category", CATEGORIES[0])):
        box = fresh.locator(f"#{section}")
        before = box.locator(".panel:visible svg[role=img]").first.get_attribute("aria-label")
        assert box.locator(".panel:visible").count() == 1
        box.locator(f"select[data-key={key}]").select_option(label=label)
        box.locator("select[data-key=shots]").select_option(label="2")
        assert box.locator(".panel:visible").count() == 1
        after = box.locator(".panel:visible svg[role=img]").first.get_attribute("aria-label")
        assert after != before
        assert label in after
    scores = fresh.locator("#scores")
    scores.locator("select[data-key=method]").select_option(label="CFM")
    assert "scores of CFM" in scores.locator(".panel:visible svg[role=img]").first.get_attribute("aria-label")
    drawn = fresh.locator("#limits .panel:visible svg.inner").bounding_box()
    assert drawn["width"] > 300
    assert drawn["height"] == pytest.approx(300, abs=1)


def test_intervals_are_shown_on_demand(fresh):
    shown, box = fresh.locator("td .interval"), fresh.get_by_label("95 % intervals over test images")
    assert shown.count() > 0
    assert shown.first.is_hidden()
    box.focus()
    fresh.keyboard.press("Space")
    assert shown.first.is_visible()
    assert " to " in shown.first.text_content()
    assert contrast(fresh, "td .interval") >= 4.5
    box.uncheck()
    assert shown.first.is_hidden()


def test_a_card_grows_and_shrinks(fresh):
    card, button = fresh.locator(".card").first, fresh.locator(".card button").first
    small = card.bounding_box()["width"]
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    assert card.bounding_box()["width"] > 2 * small
    assert canvas(fresh).shape[0] > 1.3 * small
    button.press("Enter")
    assert card.bounding_box()["width"] == small


def test_many_images_come_in_portions_and_are_decoded_when_near(chromium, store, tmp_path):
    contents = read(store)
    few = make_gallery(contents)
    facts = {**few.facts, "images": [image for image in few.facts["images"] for _ in range(10)]}
    many = replace(few, facts=facts, pixels=[[row for row in rows for _ in range(10)] for rows in few.pixels])
    path = tmp_path / "index.html"
    path.write_text(render(contents, [], [], many))
    with opened(chromium, path, viewport={"width": 400, "height": 700}) as page:
        page.locator("#cards").scroll_into_view_if_needed()
        page.wait_for_selector(".card[data-drawn]")
        assert page.locator(".card").count() == 60
        assert page.locator(".card[data-drawn]").count() < 10
        last = page.locator(".card").last
        assert last.locator("img").count() == 0
        last.scroll_into_view_if_needed()
        page.wait_for_selector(".card:last-child[data-drawn]")
        assert last.locator("img").count() >= 2
        more = page.get_by_role("button", name="Show more")
        for count in (120, 140):
            more.click()
            assert page.locator(".card").count() == count
        assert more.is_hidden()


def test_everything_has_a_name(fresh):
    assert fresh.locator("img:not([alt])").count() == 0
    for index, control in enumerate(fresh.locator("select:visible, input:visible, button:visible").all()):
        label = control.evaluate(
            "node => node.getAttribute('aria-label') || (node.labels?.[0] ?? node).textContent"
        )
        assert label.strip(), index
    for box in fresh.locator("svg[role=img], canvas").all():
        assert len(box.get_attribute("aria-label")) > 8


def contrast(page: Any, selector: str) -> float:
    """Contrast of a text with the ground that it stands on (WCAG 2)."""
    ink, ground = page.locator(selector).first.evaluate(
        """node => {
            let below = node, ground;
            do {
                ground = getComputedStyle(below).backgroundColor;
                below = below.parentElement;
            } while (!ground.startsWith('rgb('));
            return [getComputedStyle(node).color, ground].map((text) => text.match(/[0-9.]+/g).map(Number));
        }"""
    )
    light, dark = sorted((luminance(ink[:3]), luminance(ground[:3])), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(rgb: list[float]) -> float:
    values = np.array(rgb) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_light_and_dark(chromium, report):
    for scheme, other in (("light", "dark"), ("dark", "light")):
        with opened(chromium, report, color_scheme=scheme) as page:
            page.locator("#cards").scroll_into_view_if_needed()
            seen = {}
            for state in (scheme, other):
                ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
                seen[state] = luminance([float(part) for part in ground[4:-1].split(",")])
                for selector in (
                    ".lead",
                    ".note",
                    "caption",
                    "td",
                    "nav a",
                    ".tag.correct",
                    ".tag.missed",
                    "abbr",
                ):
                    assert contrast(page, selector) >= 4.5, (state, selector)
                page.locator("#theme").click()
            assert seen["dark"] < 0.05 < 0.8 < seen["light"]


def test_a_phone_scrolls_down_only(chromium, report):
    for width in (320, 390):
        with opened(chromium, report, viewport={"width": width, "height": 800}, has_touch=True) as page:
            page.locator("#cards").scroll_into_view_if_needed()
            page.wait_for_selector(".card[data-drawn]")
            page.locator(".gallery-controls summary").click()
            page.locator(".card button").first.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            box = page.locator(".scroll").first
            assert box.evaluate("node => node.scrollWidth > node.clientWidth")
            assert page.locator(".bars .value").first.bounding_box()["height"] > 9


def test_the_page_of_results_without_maps_opens(chromium, tmp_path):
    contents = read(write_toy_store(tmp_path, kept=False, seeds=(0,), shots=(1,)))
    path = tmp_path / "index.html"
    path.write_text(render(contents, draw_curves(contents), list(draw_histograms(contents)), None))
    with opened(chromium, path) as page:
        assert page.locator("#viewer").is_hidden()
        assert page.locator("polyline.sparse").count() > 0
