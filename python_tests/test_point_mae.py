"""The extractor ``point_mae``: its encoder, its weights, clouds of every size."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import batch_norm, conv1d, gelu, layer_norm, linear

from cfr_fast.data.frame import Frame
from cfr_fast.errors import InputError
from cfr_fast.extractors import create_extractor, point_weights, restore_extractor
from cfr_fast.extractors.groups import nearest_groups
from cfr_fast.extractors.point_encoder import PointEncoder
from cfr_fast.extractors.point_mae import PointMAE, group_centers

SIZE = 24
SMALL = {"groups": 20, "neighbours": 12}


def random_cloud(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, generator=generator) * 0.1 + torch.tensor([-0.05, -0.05, 0.5])


def frame_of_points(count: int) -> Frame:
    """A frame whose first `count` pixels, in raster order, are measured."""
    xyz = torch.zeros(SIZE * SIZE, 3)
    xyz[:count] = random_cloud(count)
    rgb = np.zeros((SIZE, SIZE, 3), np.uint8)
    return Frame(rgb, xyz.view(SIZE, SIZE, 3).numpy(), 0, 0, (SIZE, SIZE))


def closed_form(name: str, tensor: Tensor) -> Tensor:
    """The weights that the recorded tokens were computed with."""
    if not tensor.is_floating_point():
        return torch.ones_like(tensor)
    step = torch.arange(tensor.numel(), dtype=torch.float64)
    wave = torch.sin(0.37 * step + sum(name.encode()) % 97)
    if name.endswith("running_var"):
        value = 1 + 0.25 * wave.square()
    elif tensor.ndim == 1:
        value = 1 + 0.1 * wave if name.endswith("weight") else 0.05 * wave
    else:
        value = wave * math.sqrt(2 / (tensor.numel() / tensor.shape[0]))
    return value.float().view(tensor.shape)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return {name: closed_form(name, tensor) for name, tensor in PointEncoder().state_dict().items()}


@pytest.fixture(scope="module")
def extractor(state: dict[str, Tensor]) -> PointMAE:
    return PointMAE(**SMALL, state=state)


def direct_tokens(state: dict[str, Tensor], points: Tensor, center: Tensor, neighbour: Tensor) -> Tensor:
    """The encoder in float64 as it is defined: convolutions, batch norms, one head of attention at a time."""
    got = {name: value.double() for name, value in state.items()}
    points = points.double()

    def layers(prefix: str, x: Tensor) -> Tensor:
        x = conv1d(x, got[f"{prefix}.0.weight"], got[f"{prefix}.0.bias"])
        mean, variance = got[f"{prefix}.1.running_mean"], got[f"{prefix}.1.running_var"]
        x = batch_norm(x, mean, variance, got[f"{prefix}.1.weight"], got[f"{prefix}.1.bias"]).relu()
        return conv1d(x, got[f"{prefix}.3.weight"], got[f"{prefix}.3.bias"])

    def apply(name: str, x: Tensor) -> Tensor:
        return linear(x, got[f"{name}.weight"], got.get(f"{name}.bias"))

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(x, (384,), got[f"{name}.weight"], got[f"{name}.bias"])

    centers = points[center]
    own = layers("encoder.first_conv", (points[neighbour] - centers[:, None]).transpose(1, 2))
    both = torch.cat([own.amax(2, keepdim=True).expand_as(own), own], dim=1)
    x = layers("encoder.second_conv", both).amax(2)
    position = apply("pos_embed.2", gelu(apply("pos_embed.0", centers)))
    features = []
    for number in range(12):
        name = f"blocks.blocks.{number}"
        x = x + position
        query, key, value = apply(f"{name}.attn.qkv", norm(f"{name}.norm1", x)).chunk(3, dim=1)
        heads = [
            (query[:, a : a + 64] @ key[:, a : a + 64].T / 8).softmax(1) @ value[:, a : a + 64]
            for a in range(0, 384, 64)
        ]
        x = x + apply(f"{name}.attn.proj", torch.cat(heads, dim=1))
        x = x + apply(f"{name}.mlp.fc2", gelu(apply(f"{name}.mlp.fc1", norm(f"{name}.norm2", x))))
        if number in (3, 7, 11):
            features.append(norm("norm", x))
    return torch.cat(features, dim=1)


def test_the_encoder_is_its_definition(extractor: PointMAE, state: dict[str, Tensor]) -> None:
    points = random_cloud(90)
    ((tokens, center),) = extractor.tokens([points])
    assert tokens.shape == (20, 1152)
    distance = (points[center][:, None] - points).norm(dim=2)
    expected = direct_tokens(state, points, center, distance.argsort(dim=1, stable=True)[:, :12])
    assert (tokens - expected).norm() < 1e-5 * expected.norm()


def test_tokens_of_a_real_sample(golden: Path, state: dict[str, Tensor]) -> None:
    units = load_file(golden / "units.safetensors")
    cloud = units["pointmae.organized_xyz"].permute(1, 2, 0)
    ((tokens, center),) = PointMAE(state=state).tokens([cloud[(cloud != 0).all(dim=2)]])
    assert torch.equal(center, units["pointmae.center_index"])
    expected = units["pointmae.tokens"].T
    assert (tokens - expected).norm() < 1e-3 * expected.norm()


def test_groups_embedded_in_parts_are_the_same(extractor: PointMAE, monkeypatch: pytest.MonkeyPatch) -> None:
    points = random_cloud(90)
    ((whole, _),) = extractor.tokens([points])
    monkeypatch.setattr("cfr_fast.extractors.point_encoder.ROWS", 36)
    torch.testing.assert_close(extractor.tokens([points])[0][0], whole, rtol=1e-4, atol=1e-4)


def test_points_near_the_camera_are_no_centres_except_the_first() -> None:
    points = torch.tensor([[0.0, 0, 0.01], [0, 0.03, 0], [0, 0.04, 0], [0.0, 0, 0.5], [0.02, 0.02, 0.02]])
    assert group_centers(points, 5).tolist() == [0, 3, 2, 4]
    assert group_centers(points[1:], 2).tolist() == [0, 2]
    assert group_centers(points[:0], 5).tolist() == []


@pytest.mark.parametrize("count", [0, 1, 2, 3, 11, 19, 20, 300])
def test_small_clouds_have_fewer_groups(extractor: PointMAE, count: int) -> None:
    field = extractor.extract(frame_of_points(count), SIZE)
    assert field.tokens.shape == (min(count, 20), 1152)
    assert torch.isfinite(field.tokens).all()
    dense = field.dense()
    assert torch.isfinite(dense).all()
    assert torch.equal(field.valid, dense.ne(0).any(1))
    assert bool(field.valid.any()) == (count > 0)


def test_points_with_one_zero_coordinate_take_no_part(extractor: PointMAE) -> None:
    frame = frame_of_points(300)
    frame.xyz[5, :, 1] = 0
    without = frame.xyz.copy()
    without[5] = 0
    other = Frame(frame.rgb, without, 0, 0, (SIZE, SIZE))
    assert torch.equal(extractor.extract(frame, SIZE).dense(), extractor.extract(other, SIZE).dense())


@pytest.mark.parametrize("expanded", [False, True])
def test_the_same_bytes_again_and_after_saving(expanded: bool) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    options = {**SMALL, "expanded_distances": expanded}
    first = create_extractor("point_mae", "xyz", weights="random", seed=3, **options)
    assert torch.equal(before, torch.get_rng_state())
    config = json.loads(json.dumps(first.config()))
    assert config["options"] == options
    saved = restore_extractor(config, {name: value.clone() for name, value in first.state().items()})
    frame = frame_of_points(300)
    fields = [
        first.extract(frame, SIZE),
        first.extract(frame, SIZE),
        saved.to("cpu").extract(frame, SIZE),
    ]
    for part in ("tokens", "offset", "index", "weight", "valid"):
        assert all(torch.equal(getattr(fields[0], part), getattr(field, part)) for field in fields[1:])
    other = create_extractor("point_mae", "xyz", weights="random", seed=4, **options)
    assert not torch.equal(fields[0].tokens, other.extract(frame, SIZE).tokens)


@pytest.mark.parametrize("groups", [1, 2, 3, 50])
@pytest.mark.parametrize("expanded", [False, True])
def test_nearest_groups(monkeypatch: pytest.MonkeyPatch, groups: int, expanded: bool) -> None:
    monkeypatch.setattr("cfr_fast.extractors.groups.BLOCK", 64 * groups)
    points, centers = random_cloud(150), random_cloud(groups, 1)
    index, weight = nearest_groups(points, centers, expanded)
    assert index.shape == weight.shape == (150, 3)
    near = (points[:, None] - centers).double().square().sum(2).topk(min(3, groups), largest=False)
    inverse = 1 / (near.values + 1e-8)
    dense = torch.zeros(150, groups, dtype=torch.float64)
    dense.scatter_(1, near.indices, inverse / inverse.sum(1, keepdim=True))
    found = torch.zeros_like(dense).scatter_add_(1, index, weight.double())
    close = (found - dense).abs() < (2e-2 if expanded else 1e-4)
    assert close.all(1).double().mean() > (0.95 if expanded else 0.999)


def test_expanded_distances_round_as_the_authors_do() -> None:
    points = random_cloud(500) * 0.02 + torch.tensor([0.0, 0, 0.5])  # a millimetre apart, half a metre away
    (index, weight), (_, expanded) = (nearest_groups(points, points[:40], flag) for flag in (False, True))
    centre = torch.arange(500) < 40
    assert torch.equal(index[centre, 0], torch.arange(40))
    assert (expanded - weight)[centre].abs().max() > 0.05  # the square of nothing comes out as 1e-7


@pytest.mark.parametrize("prefix", ["", "module.", "MAE_encoder.", "module.MAE_encoder."])
@pytest.mark.parametrize("kind", ["base_model", "bare", "safetensors"])
def test_published_names_load(tmp_path: Path, state: dict[str, Tensor], prefix: str, kind: str) -> None:
    stored = {f"{prefix}{name}": value for name, value in state.items() if "num_batches" not in name}
    if prefix.endswith("MAE_encoder."):  # what else the published file holds
        outer = prefix.removesuffix("MAE_encoder.")
        stored |= {f"{outer}mask_token": torch.zeros(1), f"{outer}norm.weight": torch.zeros(7)}
        stored |= {f"{outer}MAE_decoder.norm.weight": torch.zeros(384)}
    path = tmp_path / f"weights{'.safetensors' if kind == 'safetensors' else '.pth'}"
    if kind == "safetensors":
        save_file(stored, path)
    elif kind == "bare":
        torch.save(stored, path)
    else:
        torch.save({"base_model": stored, "epoch": 300, "metrics": {"acc": np.float64(0.9)}}, path)
    loaded = create_extractor("point_mae", "xyz", weights=str(path)).state()
    assert all(torch.equal(loaded[name], value) for name, value in state.items() if "num_b" not in name)


@pytest.mark.parametrize("wrong", ["missing", "shape", "foreign", "code", "nowhere"])
def test_wrong_weights_are_named(tmp_path: Path, state: dict[str, Tensor], wrong: str) -> None:
    path = tmp_path / "weights.pth"
    stored: dict[str, object] = dict(state)
    message = {
        "missing": r"weights\.pth.*Point-MAE's encoder, got 1 entries missing, first 'norm\.bias'",
        "shape": r"'norm\.bias' of shape \[3\] instead of \[384\]",
        "foreign": r"weights\.pth.*Point-MAE's encoder.*entries missing, first",
        "code": r"weights\.pth.*tensors only",
        "nowhere": r"weights: expected 'random', None.*weights\.pth",
    }[wrong]
    if wrong == "missing":
        del stored["norm.bias"]
    elif wrong == "shape":
        stored["norm.bias"] = torch.zeros(3)
    elif wrong == "foreign":
        stored = {"layer1.weight": torch.zeros(3)}
    elif wrong == "code":
        stored["norm.bias"] = Path("a class that weights_only refuses")
    if wrong != "nowhere":
        torch.save(stored, path)
    with pytest.raises(InputError, match=message):
        create_extractor("point_mae", "xyz", weights=str(path))


@pytest.mark.parametrize(
    "options",
    [{"groups": 0}, {"neighbours": 0}, {"groups": True}, {"groups": 2.5}, {"depth": 3}, {"state": {}}],
)
def test_wrong_options_are_named(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        create_extractor("point_mae", "xyz", weights="random", **options)


def test_the_published_file_is_fetched_once_and_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: dict[str, Tensor]
) -> None:
    source = tmp_path / "published.pth"
    torch.save({"base_model": {f"module.MAE_encoder.{k}": v for k, v in state.items()}}, source)
    content = source.read_bytes()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(point_weights, "URL", source.as_uri())
    monkeypatch.setattr(point_weights, "SHA256", hashlib.sha256(content).hexdigest())
    path = tmp_path / "hub" / "checkpoints" / "pointmae_pretrain.pth"
    for _ in range(2):
        loaded = create_extractor("point_mae", "xyz")
        assert torch.equal(loaded.state()["norm.weight"], state["norm.weight"])
        assert path.read_bytes() == content
        source.unlink(missing_ok=True)  # the second time it comes from the cache
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match="remove it"):
        create_extractor("point_mae", "xyz")
    path.unlink()
    source.write_bytes(content[:-1])
    with pytest.raises(InputError, match="invalid hash"):
        create_extractor("point_mae", "xyz")
    assert list(path.parent.iterdir()) == []


def test_offline_says_which_file_belongs_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    path = tmp_path / "checkpoints" / "pointmae_pretrain.pth"
    with pytest.raises(InputError, match=r"Pang-Yatian/Point-MAE/.*27ded932.*no route to host") as caught:
        create_extractor("point_mae", "xyz")
    assert str(path) in str(caught.value)
