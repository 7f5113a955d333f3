"""The embedded network as an extractor of photos and of normal maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cfr_fast.data.frame import Frame
from cfr_fast.errors import InputError
from cfr_fast.extractors import create_extractor, restore_extractor
from cfr_fast.extractors.embedded import PACKAGED, EmbeddedBackbone
from cfr_fast.extractors.embedded_network import EmbeddedNetwork, folded

SIZE = 64


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights, float16 as trained ones are."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = {name: value.half() for name, value in EmbeddedNetwork().state_dict().items()}
    path = tmp_path_factory.mktemp("embedded") / "embedded.safetensors"
    save_file(state, path)
    return path


def dome(length: int = 96) -> Frame:
    axis = (np.arange(length) + 0.5) / length * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    xyz = np.stack([0.05 * x, 0.05 * y, 0.5 - 0.03 * np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))], axis=2)
    xyz[np.hypot(x, y) > 0.9] = 0
    rgb = np.stack([128 + 100 * np.sin(20 * x + 9 * y), 128 + 90 * np.cos(11 * y), 90 + 0 * x], axis=2)
    return Frame(rgb.round().astype(np.uint8), xyz.astype(np.float32), 0, 0, (length, length))


@pytest.mark.parametrize(("name", "role"), [("embedded", "rgb"), ("normals:embedded", "xyz")])
def test_fields_come_back_from_config_and_state(name: str, role: str, trained: Path) -> None:
    extractor = create_extractor(name, role, weights=str(trained), input_size=96)
    one, other = extractor.extract_many([dome(), dome(128)], SIZE)
    assert (extractor.name, extractor.role, one.dim, one.tokens.shape) == (name, role, 96, (144, 96))
    assert torch.isfinite(other.tokens).all()
    assert bool(one.valid.all()) == (role == "rgb")
    config: dict[str, Any] = json.loads(json.dumps(extractor.config()))
    assert "weights" not in config["options"]
    restored = restore_extractor(config, extractor.state()).to("cpu")
    assert torch.equal(restored.extract(dome(), SIZE).tokens, extractor.extract(dome(), SIZE).tokens)


def test_both_extractors_have_one_state(trained: Path) -> None:
    rgb = create_extractor("embedded", "rgb", weights=str(trained)).state()
    xyz = create_extractor("normals:embedded", "xyz", weights=str(trained)).state()
    assert rgb.keys() == xyz.keys()
    assert all(torch.equal(value, xyz[name]) for name, value in rgb.items())


def test_tokens_are_centred_in_their_cells(trained: Path) -> None:
    """The pixels that a token of either stride depends on lie evenly around the middle of its cell.

    Tokens of even number lie midway between two of the coarse cells that they are interpolated from.
    """
    backbone = EmbeddedBackbone(weights=str(trained), input_size=256)
    image = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0), requires_grad=True)
    token = backbone.tokens([image])[0, 14, 16]
    for features in (token[:32], token[32:]):
        (gradient,) = torch.autograd.grad(features.square().sum(), image, retain_graph=True)
        for axis, cell in ((2, 14), (1, 16)):
            seen = gradient.abs().sum(dim=(0, axis)).nonzero()
            middle = float(seen.min() + seen.max()) / 2
            assert abs(middle - (8 * cell + 3.5)) <= 1.5


def test_batch_norms_fold_into_the_convolutions() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, images = EmbeddedNetwork(normalised=True), torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        network(images)  # moves the running statistics
        network.eval()
        for found, wanted in zip(folded(network)(images), network(images), strict=True):
            assert found.shape == wanted.shape
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [0, 100, 448.0, True])
def test_sizes_off_the_grid_are_refused(size: Any, trained: Path) -> None:
    with pytest.raises(InputError, match=r"input_size.*multiple of 16"):
        create_extractor("embedded", "rgb", weights=str(trained), input_size=size)


def test_foreign_or_missing_weights_are_named(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        create_extractor("embedded", "rgb", weights=str(tmp_path / "nowhere.safetensors"))
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match=r"embedded network.*missing, first 'stem\.conv\.weight'"):
        create_extractor("normals:embedded", "xyz", weights=str(tmp_path / "foreign.safetensors"))


def test_without_a_packaged_file_weights_must_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfr_fast.extractors.embedded.PACKAGED", f"no-{PACKAGED}")
    with pytest.raises(InputError, match=r"train_embedded\.py wrote"):
        create_extractor("embedded", "rgb")
