"""Import of foreign checkpoints, presets, CFM's mappers, predictions from tokens; on small made-up files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from cfr_fast import CFR, InputError
from cfr_fast.authors import find_files
from cfr_fast.cli import main
from cfr_fast.data.synthetic import make_sample
from cfr_fast.extractors.groups import expanded_distances, nearest_groups
from cfr_fast.mappers import CyclicMappers, GeGLUMapper, train_mappers
from cfr_fast.mlp_mapper import MLPMapper
from cfr_fast.ops import Interpolated
from cfr_fast.retriever import AttentionRetriever

RGB, XYZ, ROWS = 6, 10, 30


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def write(folder: Path, kind: type[nn.Module] = GeGLUMapper, **changes: Any) -> Path:
    """Files as the scripts name them; `changes` replaces contents by argument, None leaves a file out."""
    torch.manual_seed(0)
    content: dict[str, tuple[str, Any]] = {
        "mapper_2d_to_3d": ("CFR_2Dto3D_part_1shot.pth", kind(RGB, XYZ).state_dict()),
        "mapper_3d_to_2d": ("CFR_3Dto2D_part_1shot.pth", kind(XYZ, RGB).state_dict()),
        "attention": ("ATTN_part_1shot.pth", AttentionRetriever(XYZ, RGB, 4).state_dict()),
        "bank": ("memory_bank_1shot.pt", draw(ROWS, RGB, seed=1)),
        "kv_bank": ("memory_bank_kv_1shot.pt", {"keys": draw(ROWS, XYZ), "values": draw(ROWS, RGB)}),
    }
    folder.mkdir(exist_ok=True)
    for argument, (name, value) in content.items():
        value = changes.get(argument, value)
        if value is not None:
            torch.save(value, folder / name)
    return folder


def tokens(seed: int = 0) -> dict[str, Tensor]:
    xyz = torch.zeros(224, 224, 3)
    xyz[60:100, 50:120] = draw(40, 70, 3, seed=seed) * 0.01 + 0.5
    return {
        "rgb_tokens": draw(RGB, 28, 28, seed=seed),
        "xyz_tokens": draw(XYZ, 16, seed=seed),
        "center_index": torch.arange(16) * 170,
        "xyz": xyz,
    }


BANKS = ("attention", "bank", "kv_bank")


@pytest.mark.parametrize(
    ("kind", "without", "replacement"),
    [
        (GeGLUMapper, (), "attention"),
        (GeGLUMapper, ("attention", "kv_bank"), "nearest"),
        (GeGLUMapper, BANKS, "none"),
        (MLPMapper, BANKS, "none"),
    ],
)
def test_imported_models_survive_their_file(
    tmp_path: Path, kind: type[nn.Module], without: tuple[str, ...], replacement: str
) -> None:
    folder = write(tmp_path / "files", kind, **dict.fromkeys(without))
    model = CFR.from_authors(**find_files(folder), threshold=0.1, score_threshold=0.0)
    assert model.settings.replacement == replacement
    assert (model.theta_, model.threshold_) == (0.1, 0.0)
    model.save(tmp_path / "model.safetensors")
    loaded = CFR.load(tmp_path / "model.safetensors")
    assert loaded.settings == model.settings
    a, b = (m.predict_tokens(**tokens()) for m in (model, loaded))
    np.testing.assert_array_equal(a.raw_map, b.raw_map)
    assert a.label
    assert (a.replaced_fraction > 0) == (replacement != "none")
    assert a.anomaly_map.shape == a.mask.shape == (224, 224)
    assert a.valid[60:100, 50:120].all()


def changed(state: dict[str, Tensor], name: str, value: Tensor) -> dict[str, Tensor]:
    return {**state, name: value}


GEGLU = GeGLUMapper(RGB, XYZ).state_dict()


@pytest.mark.parametrize(
    ("argument", "content", "words"),
    [
        ("mapper_2d_to_3d", {"w": draw(2, 2)}, ["w12, …, w3 or of input, …, output", "w float32 [2, 2]"]),
        ("mapper_2d_to_3d", [1], ["state dict", "a list"]),
        ("mapper_2d_to_3d", changed(GEGLU, "w12.bias", draw(3)), ["w12.bias [16]", "w12.bias float32 [3]"]),
        ("mapper_2d_to_3d", changed(GEGLU, "w3.bias", draw(XYZ).double()), ["float32", "float64 [10]"]),
        ("mapper_2d_to_3d", changed(GEGLU, "w3.bias", draw(XYZ) / 0), ["finite numbers", "in w3.bias"]),
        ("mapper_3d_to_2d", GEGLU, ["w12.weight [16, 10]", "w12.weight float32 [16, 6]"]),
        ("mapper_3d_to_2d", MLPMapper(XYZ, RGB).state_dict(), ["w12.weight", "input.weight"]),
        ("bank", draw(ROWS, RGB + 1), ["float32 [M, 6]", "float32 [30, 7]"]),
        ("bank", {"keys": draw(2, XYZ)}, ["float32 [M, 6]", "keys"]),
        ("bank", draw(0, RGB), ["float32 [M, 6]", "[0, 6]"]),
        ("kv_bank", {"keys": draw(3, XYZ)}, ["keys [M, 10], values [M, 6]", "keys float32 [3, 10]"]),
        ("kv_bank", {"keys": draw(3, XYZ), "values": draw(4, RGB)}, ["as many keys as values"]),
        ("attention", AttentionRetriever(XYZ + 1, RGB, 4).state_dict(), ["q_proj.weight [4, 10]", "[4, 11]"]),
        ("attention", {}, ["q_proj.weight", "nothing"]),
        ("attention", np.zeros(3), ["tensors alone"]),
    ],
)
def test_foreign_files_are_named(tmp_path: Path, argument: str, content: Any, words: list[str]) -> None:
    files = find_files(write(tmp_path / "files", **{argument: content}))
    with pytest.raises(InputError) as raised:
        CFR.from_authors(**files)
    message = str(raised.value)
    assert message.startswith(f"{argument} ({files[argument]}): expected ")
    for word in words:
        assert word in message


def test_missing_broken_and_ambiguous_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "files")
    files = find_files(folder)
    with pytest.raises(InputError, match=r"attention: expected bank and kv_bank beside it, got none"):
        CFR.from_authors(**{name: path for name, path in files.items() if name != "bank"})
    with pytest.raises(InputError, match=r"kv_bank: expected attention beside it, got none"):
        CFR.from_authors(**{name: path for name, path in files.items() if name != "attention"})
    with pytest.raises(InputError, match=r"bank: expected an existing file, got '/nowhere"):
        CFR.from_authors(**files | {"bank": Path("/nowhere/bank.pt")})
    with pytest.raises(InputError, match=r"threshold: expected a number of at least 0, got nan"):
        CFR.from_authors(**files, threshold=float("nan"))
    files["bank"].write_bytes(files["bank"].read_bytes()[:-300])
    with pytest.raises(InputError, match=r"bank \(.*\): expected a file of tensors alone"):
        CFR.from_authors(**files)
    (folder / "ATTN_other.pth").touch()
    with pytest.raises(InputError, match=r"attention: .* got ATTN_other.pth, ATTN_part_1shot.pth"):
        find_files(folder)
    with pytest.raises(
        InputError, match=r"mapper_2d_to_3d: expected one file \*2Dto3D\*.pth in .*, got none"
    ):
        find_files(tmp_path)
    with pytest.raises(InputError, match="folder: expected an existing folder"):
        find_files(tmp_path / "none")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = write(tmp_path / "files"), tmp_path / "model.safetensors"
    assert main(["import-authors", str(folder), "-o", str(out), "--theta", "0.3", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["replacement"], summary["theta"], summary["threshold"]) == ("attention", 0.3, None)
    assert len(summary["files"]) == 5
    assert CFR.load(out).theta_ == 0.3
    assert main(["import-authors", str(tmp_path), "-o", str(out)]) == 2
    assert "mapper_2d_to_3d: expected one file" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("rgb_tokens", draw(RGB + 1, 28, 28), r"rgb_tokens: expected 6 features first, got shape \[7"),
        ("rgb_tokens", draw(RGB, 28), r"rgb_tokens: expected float32 \[Dr, h0, w0\]"),
        ("xyz_tokens", draw(XYZ, 16).double(), r"xyz_tokens: expected float32 \[Dx, G\], got float64"),
        ("center_index", torch.arange(15), r"center_index: expected int64 \[16\], got int64 \[15\]"),
        (
            "center_index",
            torch.arange(16) + 2785,
            "center_index: expected numbers from 0 to 2799 .* got 2800",
        ),
        ("center_index", torch.arange(16) - 1, "center_index: .* got -1"),
        ("xyz", draw(3, 224, 224), r"xyz: expected shape \[224, 224, 3\], got shape \[3, 224, 224\]"),
    ],
)
def test_tokens_that_do_not_fit(tmp_path: Path, name: str, value: Tensor, words: str) -> None:
    model = CFR.from_authors(**find_files(write(tmp_path / "files")))
    with pytest.raises(InputError, match=words):
        model.predict_tokens(**tokens() | {name: value})


def test_expanded_distances_are_those_of_a_float32_product() -> None:
    points = draw(300, 3) * 0.05 + torch.tensor([0.0, 0.0, 0.5])
    expanded, exact = (
        expanded_distances(points, points[:40]),
        torch.cdist(points.double(), points[:40].double()) ** 2,
    )
    error = (expanded - exact).abs()
    assert 1e-9 < error.median() < 2e-7
    assert error.max() < 5e-7
    near, wanted = nearest_groups(points, points[:40], expanded=True), expanded.sort(dim=1)
    assert torch.equal(near[0], wanted.indices[:, :3])
    inverse = 1 / (wanted.values[:, :3] + 1e-8)
    torch.testing.assert_close(near[1], inverse / inverse.sum(dim=1, keepdim=True), rtol=1e-6, atol=1e-6)


def test_mlp_mapper_is_three_layers_with_gelu() -> None:
    mapper = MLPMapper(6, 9)
    gelu = nn.GELU()
    features = Interpolated(draw(20, 6), torch.arange(0, 6001, 2), torch.arange(6000) % 20, draw(6000).abs())
    dense = features.dense()
    wanted = mapper.output(gelu(mapper.projection(gelu(mapper.input(dense)))))
    assert mapper.input.out_features == mapper.projection.out_features == 7
    torch.testing.assert_close(mapper(dense), wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(mapper.map(features), wanted.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["geglu", "mlp"])
def test_the_loss_without_cycles_is_its_first_two_terms(kind: str) -> None:
    rgb, xyz = Interpolated.of(draw(50, RGB)), Interpolated.of(draw(50, XYZ))
    pair = CyclicMappers(RGB, XYZ, kind)
    found = pair.accumulate(rgb, xyz, cycle=False)
    gradient = [p.grad.clone() for p in pair.parameters() if p.grad is not None]
    pair.zero_grad()
    terms = [
        1 - cosine_similarity(mapper(a.tokens), b.tokens, eps=1e-6).mean()
        for mapper, a, b in ((pair.rgb_to_xyz, rgb, xyz), (pair.xyz_to_rgb, xyz, rgb))
    ]
    torch.testing.assert_close(found, torch.stack(terms).detach(), rtol=0, atol=1e-6)
    sum(terms).backward()
    for got, parameter in zip(gradient, pair.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(pair.accumulate(rgb, xyz)[:2], found, rtol=0, atol=1e-6)


def test_cycles_change_what_is_learned() -> None:
    shots = [(Interpolated.of(draw(50, RGB)), Interpolated.of(draw(50, XYZ)))]
    with_cycles, without = (
        train_mappers(shots, epochs=5, learning_rate=1e-2, seed=0, kind="mlp", cycle=cycle)
        for cycle in (True, False)
    )
    assert not torch.equal(with_cycles.xyz_to_rgb.output.weight, without.xyz_to_rgb.output.weight)


def test_the_cfm_baseline_fits_and_travels(tmp_path: Path) -> None:
    part = make_sample("cookie", 0, split="train", defect="good", seed=0, size=64)
    changes = {"mapper": "mlp", "cycle": False, "replacement": "none", "mapper_epochs": 3, "shot_views": 0}
    model = CFR.preset("classic", size=32, **changes)
    model.fit(part).save(tmp_path / "model.safetensors")
    loaded = CFR.load(tmp_path / "model.safetensors")
    assert isinstance(loaded.learned.mappers.xyz_to_rgb, MLPMapper)
    np.testing.assert_array_equal(model.predict(part).raw_map, loaded.predict(part).raw_map)


def test_presets() -> None:
    paper, sweets = CFR.preset("paper-mvtec3d").settings, CFR.preset("paper-eyecandies").settings
    assert (paper.theta, sweets.theta) == (0.4, 0.2)
    assert (paper.rgb, paper.xyz, paper.seed, paper.mapper_pixels) == ("dino_vitb8", "point_mae", 115, None)
    assert paper.expanded_distances
    assert paper.bank_background
    assert CFR.preset("embedded").settings == CFR().settings
    assert (CFR().settings.rgb, CFR().settings.score) == ("embedded", "calibrated")
    plain = CFR.preset("classic").settings
    assert (plain.rgb, plain.xyz, plain.score) == ("classic", "classic", "discrepancy")
    assert (paper.score, paper.crop, paper.turns, paper.false_alarm) == ("discrepancy", False, False, None)
    other = CFR.preset("paper-mvtec3d", xyz="classic", seed=3).settings
    assert (other.xyz, other.seed, other.expanded_distances) == ("classic", 3, False)
    with pytest.raises(InputError, match=r"preset: expected one of embedded, paper-mvtec3d, .*, got 'paper'"):
        CFR.preset("paper")


@pytest.mark.parametrize(
    "wrong", [{"mapper": "cnn"}, {"cycle": 1}, {"expanded_distances": "yes"}], ids=lambda w: next(iter(w))
)
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        CFR(**wrong)
