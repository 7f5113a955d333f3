"""CFR as a user meets it: fit, predict, save, load; on small procedural samples."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.ndimage import binary_dilation

from cfr_fast import CFR, InputError, NotFittedError, OutputError, Result, Sample, artifact
from cfr_fast.data import SampleSource
from cfr_fast.data.augment import augment
from cfr_fast.data.synthetic import make_sample
from cfr_fast.presets import PRESETS

FAST = {
    **PRESETS["classic"],
    "size": 48,
    "mapper_epochs": 20,
    "attention_epochs": 10,
    "shot_views": 1,
    "calibration_views": 3,
    "background": "none",
}


def part(index: int, split: str = "train", defect: str = "good") -> Sample:
    return make_sample("cookie", index, split=split, defect=defect, seed=0, size=96)


@pytest.fixture(scope="module")
def good() -> list[Sample]:
    return [part(0), part(1)]


@pytest.fixture(scope="module")
def model(good: list[Sample]) -> CFR:
    return CFR(seed=0, **FAST).fit(good)


def same(a: Result, b: Result) -> bool:
    fields = ("anomaly_map", "mask", "raw_map", "localization_map", "valid", "replaced")
    numbers = a.score == b.score and a.label == b.label and a.replaced_fraction == b.replaced_fraction
    return numbers and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in fields)


def test_result_is_complete_and_consistent(model: CFR) -> None:
    sample = part(0, "test", "hole")
    result = model.predict(sample)
    assert result.anomaly_map.shape == result.mask.shape == (96, 96)
    assert result.anomaly_map.dtype == np.float32
    assert result.mask.dtype == bool
    assert np.isfinite(result.anomaly_map).all()
    assert result.raw_map.shape == result.localization_map.shape == result.valid.shape == (48, 48)
    assert result.label == (result.score > model.threshold_)
    assert 0 <= result.replaced_fraction <= 1
    assert result.replaced.sum() == round(result.replaced_fraction * result.valid.sum())
    assert not (result.replaced & ~result.valid).any()
    assert result.localization_map[result.localization_map > 0].mean() == pytest.approx(1, rel=1e-5)
    assert result.anomaly_map.max() <= result.score * 1.0001


def test_notes_say_what_to_know_before_trusting_a_result(good: list[Sample], model: CFR) -> None:
    assert model.predict(good[0]).notes == ()
    between = np.zeros_like(good[0].xyz)
    between[1, 1] = (0.1, 0.1, 0.5)  # the grid of 48 takes every other pixel of 96
    result = model.predict(Sample(good[0].rgb, between))
    assert result.notes == ("no pixel has both features: nothing was judged",)
    assert (result.score, result.label, result.verdict().notes) == (0.0, False, result.notes)
    bumpy = good[0].xyz.copy()
    bumpy[...] = np.random.default_rng(0).random(bumpy.shape, np.float32) + np.float32(0.5)
    seen = CFR(**FAST | {"background": "auto"})
    seen._learned = model.learned
    assert seen.predict(Sample(good[0].rgb, bumpy)).notes == ("no background was found: every point is kept",)
    assert seen.predict(good[0]).notes == ()


def test_clouds_with_few_points_are_judged_and_noted(good: list[Sample]) -> None:
    options = {"weights": "random", "groups": 40, "neighbours": 8}
    fitted = CFR(**FAST | {"xyz": "point_mae", "xyz_options": options}).fit(good[:1])
    sparse = good[1].xyz.copy()
    sparse[np.arange(96)[:, None] % 12 + np.arange(96) % 12 > 0] = 0
    sparse[:, :60] = 0
    result = fitted.predict(Sample(good[1].rgb, sparse))
    (note,) = result.notes
    assert re.fullmatch(r"\d+ groups of points instead of 40: \d+ points are usable", note)
    assert result.valid.any()
    assert np.isfinite(result.score)
    assert fitted.predict(good[1]).notes == ()


def test_the_same_seed_gives_the_same_model(good: list[Sample], model: CFR) -> None:
    sample = part(3, "test", "colour")
    assert same(model.predict(sample), CFR(seed=0, **FAST).fit(good).predict(sample))
    assert not same(model.predict(sample), CFR(seed=1, **FAST).fit(good).predict(sample))


@pytest.mark.parametrize("replacement", ["attention", "bank", "nearest", "none"])
def test_saved_and_loaded_models_predict_bit_equal(
    tmp_path: Path, good: list[Sample], replacement: str
) -> None:
    fitted = CFR(replacement=replacement, **FAST).fit(good[:1])
    fitted.save(tmp_path / "model.safetensors")
    loaded = CFR.load(tmp_path / "model.safetensors")
    assert loaded.settings == fitted.settings
    assert (loaded.theta_, loaded.threshold_) == (fitted.theta_, fitted.threshold_)
    for defect in ("good", "dent"):
        sample = part(1, "test", defect)
        assert same(fitted.predict(sample), loaded.predict(sample))


def test_files_of_older_formats_keep_their_meaning(model: CFR, tmp_path: Path) -> None:
    """They do not name settings that came later, whatever these are by default today."""
    path = tmp_path / "model.safetensors"
    model.save(path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["cfr_fast"])
    assert header["format"] == max(artifact.READABLE)
    for name in artifact.ABSENT:
        del header["settings"][name]
    save_file(load_file(path), path, {"cfr_fast": json.dumps(header | {"format": 2})})
    sample = part(0, "test", "dent")
    assert same(CFR.load(path, device="cpu").predict(sample), model.predict(sample))


def test_frozen_networks_travel_with_the_model(tmp_path: Path, good: list[Sample]) -> None:
    options = {"weights": "random", "input_size": 64}
    networks = {"rgb": "timm:resnet10t", "xyz": "normals:resnet10t"}
    fitted = CFR(**FAST | networks | {"rgb_options": options, "xyz_options": options}).fit(good[:1])
    fitted.save(tmp_path / "model.safetensors")
    stored = {name.split(".")[1] for name in load_file(tmp_path / "model.safetensors") if "network" in name}
    assert len(stored) == 1  # one network serves both kinds and is stored once
    sample = part(1, "test", "dent")
    assert same(fitted.predict(sample), CFR.load(tmp_path / "model.safetensors").predict(sample))


def test_ways_to_give_samples(tmp_path: Path, good: list[Sample], model: CFR) -> None:
    from cfr_fast.data import write_rgb, write_xyz

    sample = good[0]
    write_rgb(tmp_path / "part.png", sample.rgb)
    write_xyz(tmp_path / "part.tiff", sample.xyz)
    source = SampleSource("part", lambda: sample)
    ways = [
        sample,
        source,
        (sample.rgb, sample.xyz),
        tmp_path / "part.png",
        str(tmp_path / "part.tiff"),
        [sample],
    ]
    wanted = model.predict(sample)
    for way in ways:
        assert same(wanted, model.predict(way))
    assert len(list(model.predict_many(ways))) == len(ways)
    np.testing.assert_array_equal(model.decision_function([sample, source]), [wanted.score] * 2)


def test_batches_give_what_one_by_one_gives(model: CFR) -> None:
    ways = [part(number, "test", defect) for number, defect in enumerate(("good", "hole", "dent", "good"))]
    wanted = [model.predict(sample) for sample in ways]
    for size in (1, 2, 7):
        asked: list[str] = []

        def source(asked: list[str] = asked) -> Iterator[Sample]:
            for sample in ways:
                asked.append(sample.name)
                yield sample

        found = model.predict_many(source(), batch_size=size)
        first = next(found)
        assert len(asked) == min(size, len(ways))  # no more samples are held than a batch has
        for got, one in zip([first, *found], wanted, strict=True):
            assert got.name == one.name
            assert np.array_equal(got.replaced, one.replaced)
            assert np.array_equal(got.valid, one.valid)
            np.testing.assert_allclose(got.raw_map, one.raw_map, rtol=1e-5, atol=1e-6)
            assert got.score == pytest.approx(one.score, rel=1e-4)


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_batch_sizes_that_make_no_sense(model: CFR, size: Any) -> None:
    with pytest.raises(InputError, match="batch_size: expected a whole number ≥ 1, got"):
        model.predict_many([], batch_size=size)


def test_theta_decides_what_is_replaced(good: list[Sample]) -> None:
    fractions = []
    for theta in (0.0, None, 2.1):  # None: half of the predictions on normal views count as reliable
        fitted = CFR(theta=theta, reliable_share=0.5, threshold=1.0, **FAST).fit(good[:1])
        fractions.append(fitted.predict(part(2, "test")).replaced_fraction)
    assert fractions[0] == 1
    assert 0 < fractions[1] < 1
    assert fractions[2] == 0


def test_given_levels_are_kept_without_views(good: list[Sample]) -> None:
    fitted = CFR(theta=0.3, threshold=1.25, **FAST | {"calibration_views": 0}).fit(good[:1])
    assert (fitted.theta_, fitted.threshold_) == (0.3, 1.25)
    assert fitted.pixel_threshold_ == 1.25


def test_background_rows_can_enter_the_banks(good: list[Sample]) -> None:
    sizes = [
        len(CFR(bank_background=keep, **FAST).fit(good[:1]).learned.rgb_bank)  # type: ignore[arg-type]
        for keep in (False, True)
    ]
    assert sizes[0] < sizes[1] == int(0.1 * 48 * 48)


def test_cropped_models_speak_of_the_whole_sample(good: list[Sample]) -> None:
    wide = np.zeros((96, 160, 3), np.uint8), np.zeros((96, 160, 3), np.float32)
    wide[0][:, 50:146], wide[1][:, 50:146] = part(1, "test", "hole").rgb, part(1, "test", "hole").xyz
    result = CFR(**FAST | {"crop": True}).fit(good).predict(wide)
    assert result.anomaly_map.shape == (96, 160)
    assert result.raw_map.shape == result.valid.shape == (48, 48)
    seen = result.frame.grid_mask((wide[1] != 0).any(axis=2), 48)
    assert result.valid[seen].mean() > 0.95
    assert not result.valid[~binary_dilation(seen, iterations=2)].any()  # reaches a pixel beyond the points
    rows, columns = np.nonzero(result.raw_map)
    assert columns.min() > 48 * 50 / 160 - 3
    assert rows.max() < 40  # the lower part of the square is padding


def test_single_precision_and_sizes_do_not_matter_to_the_caller(model: CFR) -> None:
    tall = make_sample("cookie", 5, split="test", defect="good", seed=0, size=96)
    cropped = Sample(tall.rgb[8:, 3:], tall.xyz[8:, 3:].astype(np.float64))
    assert model.predict(cropped).anomaly_map.shape == (88, 93)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "samples: expected at least one normal sample, got none"),
        (lambda: [part(0, "test", "dent")], "samples: expected normal samples only, got .* with a defect"),
        (3, "sample: expected a Sample, .* got int"),
        ("/nowhere/at/all.png", "nowhere"),
    ],
)
def test_fit_refuses(samples: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CFR(**FAST).fit(samples() if callable(samples) else samples)  # type: ignore[arg-type]


def test_unfitted_models_say_so(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="not fitted"):
        CFR().predict(part(0))
    with pytest.raises(NotFittedError):
        CFR().save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_failed_fit_keeps_the_old_model(good: list[Sample]) -> None:
    fitted = CFR(**FAST).fit(good[:1])
    before = fitted.predict(part(1, "test"))
    with pytest.raises(InputError):
        fitted.fit([])
    assert same(before, fitted.predict(part(1, "test")))


def test_unknown_device() -> None:
    with pytest.raises(
        InputError, match="device: expected auto, cpu, or a device of this machine, got 'abacus'"
    ):
        CFR(device="abacus")


class TestModelFiles:
    @pytest.fixture(scope="class")
    @classmethod
    def file(cls, tmp_path_factory: pytest.TempPathFactory, model: CFR) -> Path:
        path = tmp_path_factory.mktemp("model") / "model.safetensors"
        model.save(path)
        return path

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(share=st.floats(0, 0.999))
    def test_cut_short(self, file: Path, tmp_path: Path, share: float) -> None:
        cut = tmp_path / "cut.safetensors"
        content = file.read_bytes()
        cut.write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError, match="cut short or foreign"):
            CFR.load(cut)

    def test_absent(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"model: expected an existing model file, got '.*none"):
            CFR.load(tmp_path / "none")

    def test_foreign(self, tmp_path: Path) -> None:
        save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
        with pytest.raises(InputError, match="a safetensors file of something else"):
            CFR.load(tmp_path / "foreign.safetensors")

    def rewritten(self, file: Path, target: Path, **changes: object) -> Path:
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            header = json.loads(opened.metadata()["cfr_fast"])
        save_file(load_file(file), target, {"cfr_fast": json.dumps(header | changes)})
        return target

    def test_another_version(self, file: Path, tmp_path: Path) -> None:
        path = self.rewritten(file, tmp_path / "new.safetensors", format=99)
        with pytest.raises(
            InputError, match="expected model format 1 or 2 or 3 or 4, got format 99, from another version"
        ):
            CFR.load(path)

    @pytest.mark.parametrize("changes", [{"levels": {}}, {"settings": {"size": -1}}, {"extractors": []}])
    def test_damaged_header(self, file: Path, tmp_path: Path, changes: dict[str, object]) -> None:
        path = self.rewritten(file, tmp_path / "damaged.safetensors", **changes)
        with pytest.raises(InputError, match=r"expected a complete CFR model|size: expected"):
            CFR.load(path)

    def test_unwritable_folder_keeps_what_was_there(self, model: CFR, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("kept")
        with pytest.raises(OutputError):
            model.save(tmp_path / "file" / "model.safetensors")
        assert (tmp_path / "file").read_text() == "kept"
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


class TestViews:
    def test_views_repeat_and_differ(self, good: list[Sample]) -> None:
        first, again = (augment(good[0], np.random.default_rng(1)) for _ in range(2))
        other = augment(good[0], np.random.default_rng(2))
        assert np.array_equal(first.rgb, again.rgb)
        assert np.array_equal(first.xyz, again.xyz)
        assert not np.array_equal(first.xyz, other.xyz)

    def test_points_turn_with_their_pixels(self) -> None:
        """A plane x = a·column, y = a·row stays one: turned points still lie where their pixels look."""
        rows, columns = np.mgrid[0:81, 0:81]
        xyz = np.stack([columns * 1e-3, rows * 1e-3, np.full(rows.shape, 0.5)], axis=2).astype(np.float32)
        view = augment(Sample(np.zeros((81, 81, 3), np.uint8), xyz), np.random.default_rng(4))
        y, x = np.nonzero(view.valid[20:60, 20:60])
        y, x = y + 20, x + 20
        fit = [np.polyfit(pixel, view.xyz[y, x, axis], 1) for axis, pixel in ((0, x), (1, y))]
        error = [
            view.xyz[y, x, axis] - np.polyval(f, p)
            for (axis, p), f in zip(((0, x), (1, y)), fit, strict=True)
        ]
        assert max(np.abs(e).max() for e in error) < 2.5e-3  # nearest pixels, and noise-free
        assert all(f[0] == pytest.approx(1e-3, rel=0.1) for f in fit)
