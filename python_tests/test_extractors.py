from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import cosine_similarity

from cfr_fast.data.frame import Frame
from cfr_fast.errors import InputError
from cfr_fast.extractors import Extractor, available_extractors, create_extractor, describe, restore_extractor
from cfr_fast.extractors.torchvision_fix import import_timm

SIZE = 64
TINY = {"weights": "random", "input_size": 64}
EXTRACTORS: list[tuple[str, str, dict[str, Any]]] = [
    ("classic", "rgb", {}),
    ("classic", "xyz", {}),
    ("timm:resnet10t", "rgb", TINY),
    ("timm:vit_tiny_patch16_224", "rgb", {**TINY, "layers": [1, 3]}),
    ("normals:resnet10t", "xyz", {**TINY, "layers": ["layer2"]}),
]


def grid(length: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    axis = (np.arange(length) + 0.5) / length * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def bumps(length: int = 128, seed: int = 0) -> Frame:
    """A round dome with dimples, half a metre away, and a coloured, striped skin."""
    y, x = grid(length)
    radius = np.hypot(x, y)
    height = 0.03 * np.sqrt(np.clip(1 - radius**2, 0, None))
    height += 0.004 * np.sin(9 * x + seed) * np.cos(7 * y)
    xyz = np.stack([0.05 * x, 0.05 * y, 0.5 - height], axis=2)
    xyz[radius > 0.9] = 0
    rgb = np.stack([128 + 100 * np.sin(20 * x + 9 * y), 128 + 90 * np.cos(11 * y), 90 + 0 * x], axis=2)
    return Frame(rgb.round().astype(np.uint8), xyz.astype(np.float32), 0, 0, (length, length))


def rotated(frame: Frame) -> Frame:
    """The part turned by 90° about the line of sight: pixels and coordinates."""
    turned = np.rot90(frame.xyz).copy()
    turned = np.stack([turned[..., 1], -turned[..., 0], turned[..., 2]], axis=2)
    return Frame(np.rot90(frame.rgb).copy(), turned, 0, 0, frame.source_shape)


@pytest.mark.parametrize(("name", "role", "options"), EXTRACTORS)
def test_fields_are_finite_deterministic_and_leave_random_state_alone(
    name: str, role: str, options: dict[str, Any]
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    extractor = create_extractor(name, role, **options)
    field = extractor.extract(bumps(), SIZE)
    again = create_extractor(name, role, **options).extract(bumps(), SIZE)
    assert torch.equal(before, torch.get_rng_state())
    assert (extractor.name, extractor.role) == (name, role)
    assert field.shape == (SIZE, SIZE)
    assert field.dense().dtype == torch.float32
    assert torch.isfinite(field.dense()).all()
    assert torch.equal(field.tokens, again.tokens)
    assert field.dense()[field.valid].norm(dim=1).min() > 0
    measured = torch.from_numpy((bumps().grid_xyz(SIZE) != 0).any(2).reshape(-1))
    assert field.valid.all() if role == "rgb" else (field.valid >= measured).all()
    assert role == "rgb" or not field.valid[0]


@pytest.mark.parametrize(("name", "role", "options"), EXTRACTORS)
def test_restored_extractors_give_the_same_bytes(name: str, role: str, options: dict[str, Any]) -> None:
    extractor = create_extractor(name, role, **options)
    config = json.loads(json.dumps(extractor.config()))
    state = {key: value.clone() for key, value in extractor.state().items()}
    restored = restore_extractor(config, state)
    assert restored.config() == extractor.config()
    first, second = extractor.extract(bumps(), SIZE), restored.to("cpu").extract(bumps(), SIZE)
    for part in ("tokens", "offset", "index", "weight", "valid"):
        assert torch.equal(getattr(first, part), getattr(second, part))


@pytest.mark.parametrize(("name", "role"), [("classic", "rgb"), ("classic", "xyz")])
def test_classic_features_do_not_turn_with_the_part(name: str, role: str) -> None:
    extractor = create_extractor(name, role)
    straight = extractor.extract(bumps(), SIZE).dense().view(SIZE, SIZE, -1)
    turned = extractor.extract(rotated(bumps()), SIZE).dense().view(SIZE, SIZE, -1)
    back = torch.rot90(turned, -1)
    inside = torch.from_numpy(np.hypot(*grid(SIZE)) < 0.7)
    same = cosine_similarity(straight, back, dim=2)[inside]
    other = cosine_similarity(straight, torch.roll(straight, 9, 0), dim=2)[inside]
    assert same.quantile(0.05) > 0.97
    assert (1 - same).mean() < 0.25 * (1 - other).mean()


def test_classic_3d_features_do_not_depend_on_units() -> None:
    frame = bumps()
    millimetres = Frame(frame.rgb, frame.xyz * np.float32(1024), 0, 0, frame.source_shape)
    extractor = create_extractor("classic", "xyz")
    first, second = extractor.extract(frame, SIZE), extractor.extract(millimetres, SIZE)
    assert torch.equal(first.valid, second.valid)
    assert cosine_similarity(first.dense(), second.dense())[first.valid].min() > 0.999


def test_classic_3d_features_see_a_dent() -> None:
    frame = bumps()
    y, x = grid(frame.side)
    dent = np.exp(-((x - 0.2) ** 2 + (y + 0.1) ** 2) / 0.01)
    xyz = frame.xyz.copy()
    xyz[..., 2] += (0.005 * dent * (xyz[..., 2] > 0)).astype(np.float32)
    extractor = create_extractor("classic", "xyz")
    before = extractor.extract(frame, SIZE).dense()
    after = extractor.extract(Frame(frame.rgb, xyz, 0, 0, frame.source_shape), SIZE).dense()
    change = (1 - cosine_similarity(before, after)).view(SIZE, SIZE)
    small = Frame(frame.rgb, dent[..., None].repeat(3, 2).astype(np.float32), 0, 0, frame.source_shape)
    near = torch.from_numpy(small.grid_xyz(SIZE)[..., 0])
    far = (near < 1e-6) & (extractor.extract(frame, SIZE).valid.view(SIZE, SIZE))
    assert change[near > 0.5].mean() > 10 * change[far].mean()


def test_holes_pull_features_towards_their_surroundings() -> None:
    frame = bumps()
    drop = np.random.default_rng(0).random((frame.side, frame.side)) < 0.2
    xyz = np.where(drop[..., None], np.float32(0), frame.xyz)
    extractor = create_extractor("classic", "xyz")
    full = extractor.extract(frame, SIZE)
    holed = extractor.extract(Frame(frame.rgb, xyz, 0, 0, frame.source_shape), SIZE)
    inside = torch.from_numpy(np.hypot(*grid(SIZE)) < 0.7).view(-1)
    assert holed.valid[inside].all()
    assert cosine_similarity(full.dense(), holed.dense())[inside].quantile(0.05) > 0.9


@pytest.mark.parametrize("cloud", ["plane", "missing", "one point", "line"])
@pytest.mark.parametrize("name", ["classic", "normals:resnet10t"])
def test_degenerate_clouds_give_finite_features(name: str, cloud: str) -> None:
    y, x = grid(SIZE)
    xyz = np.stack([x, y, np.full_like(x, 2.0)], axis=2).astype(np.float32)
    keep = {"plane": xyz[..., 2] > 0, "missing": xyz[..., 2] < 0}.get(cloud, np.zeros((SIZE, SIZE), bool))
    if cloud != "plane" and cloud != "missing":
        keep[20, 20 : 40 if cloud == "line" else 21] = True
    xyz[~keep] = 0
    frame = Frame(np.full((SIZE, SIZE, 3), 77, np.uint8), xyz, 0, 0, (SIZE, SIZE))
    options = TINY if ":" in name else {}
    field = create_extractor(name, "xyz", **options).extract(frame, SIZE)
    assert torch.isfinite(field.dense()).all()
    assert bool(field.valid.any()) == (cloud != "missing")
    assert (field.valid >= torch.from_numpy(keep).view(-1)).all()


def test_a_uniform_photo_has_the_same_features_everywhere() -> None:
    frame = Frame(np.full((50, 50, 3), 200, np.uint8), np.ones((50, 50, 3), np.float32), 0, 0, (50, 50))
    dense = create_extractor("classic", "rgb").extract(frame, SIZE).dense()
    assert torch.isfinite(dense).all()
    torch.testing.assert_close(dense, dense[:1].expand_as(dense), atol=1e-3, rtol=0)


def test_extractors_are_listed_and_described() -> None:
    listed = {(info.name, info.role): info for info in available_extractors()}
    assert listed[("classic", "xyz")].needs == "nothing"
    assert ("normals:<model>", "xyz") in listed
    assert {("dino_vitb8", "rgb"), ("point_mae", "xyz")} <= listed.keys()
    assert "timm" in describe("timm:resnet18", "rgb")


@pytest.mark.parametrize(
    ("name", "role", "options", "message"),
    [
        ("clasic", "rgb", {}, "did you mean 'classic'"),
        ("normals:resnet10t", "rgb", {}, "one of classic, timm:<model>"),
        ("timm:", "rgb", {}, "one of classic, timm:<model>"),
        ("classic", "depth", {}, "role"),
        ("classic", "xyz", {"bins": 4, "radius": 1}, "bins, radius"),
        ("classic", "rgb", {"stride": 0}, "stride"),
        ("classic", "xyz", {"radii": []}, "radii"),
        ("timm:resnet10", "rgb", TINY, "did you mean 'resnet10t'"),
        ("timm:resnet10t", "rgb", {**TINY, "state": {}}, "state"),
        ("timm:resnet10t", "rgb", {**TINY, "layers": ["layer9"]}, "such as layer"),
        ("timm:resnet10t", "rgb", {**TINY, "layers": [7]}, "numbers from -5 to 4"),
        ("timm:resnet10t", "rgb", {**TINY, "layers": ["global_pool"]}, "grid of features"),
        ("timm:resnet10t", "rgb", {**TINY, "mean": [0.5]}, "three numbers"),
        ("timm:resnet10t", "rgb", {**TINY, "model_kwargs": {"colour": 1}}, "model_kwargs"),
        ("timm:resnet10t", "rgb", {"weights": "nowhere.pth"}, "nowhere.pth"),
        ("normals:resnet10t", "xyz", {**TINY, "window": 1}, "window"),
        ("dino_vitb8", "rgb", {"weights": "nowhere.pth"}, "nowhere.pth"),
        ("dino_vitb8", "rgb", {"input_size": 448}, "input_size"),
        ("dino_vitb8", "xyz", {}, "did you mean|one of"),
    ],
)
def test_bad_names_and_options_are_refused(
    name: str, role: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        create_extractor(name, role, **options)


def test_sizes_that_the_stride_does_not_divide_are_refused() -> None:
    for role in ("rgb", "xyz"):
        with pytest.raises(InputError, match="multiple of the stride 4"):
            create_extractor("classic", role).extract(bumps(), 30)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_that_cannot_be_read_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"no weights at all")
    with pytest.raises(InputError, match=path.name):
        create_extractor("timm:resnet10t", "rgb", weights=str(path))


def test_weights_load_from_files_and_must_fit(tmp_path: Path) -> None:
    timm = import_timm()
    path = tmp_path / "resnet10t.pth"
    network = timm.create_model("resnet10t", pretrained=False)
    torch.save({"state_dict": network.state_dict()}, path)
    extractor = create_extractor("timm:resnet10t", "rgb", weights=str(path), input_size=64)
    expected = network.state_dict()["layer1.0.conv1.weight"]
    assert torch.equal(extractor.state()["layer1.0.conv1.weight"], expected)
    assert "layer4.0.conv1.weight" not in extractor.state()
    with pytest.raises(InputError, match=r"resnet10t\.pth.*missing, first"):
        create_extractor("timm:mobilenetv2_100", "rgb", weights=str(path))


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="weights=PATH"):
        create_extractor("timm:resnet10t", "rgb")


def test_missing_timm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install cfr-fast\[timm\]"):
        create_extractor("timm:resnet10t", "rgb")


@pytest.fixture(scope="module")
def dino() -> Extractor:
    return create_extractor("dino_vitb8", "rgb", weights="random")


def test_dino_takes_the_tokens_of_the_last_norm(dino: Extractor) -> None:
    frame = bumps(224)  # no resizing: the network's input can be written down
    field = dino.extract(frame, SIZE)
    assert (field.tokens.shape, field.tokens.dtype) == ((784, 768), torch.float32)
    assert (dino.name, dino.role, bool(field.valid.all())) == ("dino_vitb8", "rgb", True)
    network = import_timm().create_model("vit_base_patch8_224.dino", pretrained=False, num_classes=0).eval()
    network.load_state_dict(dino.state())
    image = torch.from_numpy(frame.rgb).permute(2, 0, 1)[None] / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network.forward_features((image - mean.view(3, 1, 1)) / std.view(3, 1, 1))[0, 1:]
    torch.testing.assert_close(field.tokens, expected, rtol=1e-4, atol=1e-5)


def test_dino_returns_from_its_state_and_from_files(dino: Extractor, tmp_path: Path) -> None:
    path = tmp_path / "dino_vitbase8_pretrain.pth"
    torch.save(dino.state(), path)  # the published names are timm's
    loaded = create_extractor("dino_vitb8", "rgb", weights=str(path))
    restored = restore_extractor(json.loads(json.dumps(loaded.config())), loaded.state())
    assert restored.config() == {
        "name": "dino_vitb8",
        "role": "rgb",
        "options": {"autocast": True, "compile": False},
    }
    tokens = dino.extract(bumps(), SIZE).tokens
    assert torch.equal(restored.to("cpu").extract(bumps(), SIZE).tokens, tokens)
    with pytest.raises(InputError, match=r"dino_vitbase8.*'resnet10t'.*missing, first"):
        create_extractor("timm:resnet10t", "rgb", weights=str(path))


def test_published_weights_feed_both_modalities(weights: Path) -> None:
    path = str(weights / "mobilenetv2_100_imagenet_int8.safetensors")
    options = {"weights": path, "mean": 0.5, "std": 0.5, "model_kwargs": {"pad_type": "same"}}
    rgb = create_extractor("timm:mobilenetv2_100", "rgb", input_size=96, **options)
    xyz = create_extractor("normals:mobilenetv2_100", "xyz", input_size=96, **options)
    assert rgb.config()["options"]["layers"] == ["blocks.3", "blocks.4"]
    assert rgb.extract(bumps(), SIZE).dim == 160
    assert xyz.extract(bumps(), SIZE).dim == 160
    assert all(torch.equal(rgb.state()[name], value) for name, value in xyz.state().items())
