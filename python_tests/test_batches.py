"""Several frames in one call, compiled stages, fused attention: the same features in other ways."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._inductor import config as inductor

from cfr_fast.data.frame import Frame
from cfr_fast.extractors import create_extractor
from cfr_fast.extractors.backbone import Backbone

SIZE = 32
TINY = {"weights": "random", "input_size": 64}
# How far a batch's features may lie from those of one frame, of their largest: products of other sizes round
# otherwise. What nothing is batched in stays the same to the last bit.
TOLERANCE = 1e-5


def part(seed: int, radius: float = 0.9, side: int = 48) -> Frame:
    """A coloured dome of measured points, half a metre away."""
    draw = np.random.default_rng(seed)
    y, x = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    height = 0.02 * np.sqrt(np.clip(1 - x**2 - y**2, 0, None)) + 0.001 * draw.random((side, side))
    xyz = np.stack([0.05 * x, 0.05 * y, 0.5 - height], axis=2).astype(np.float32)
    xyz[np.hypot(x, y) > radius] = 0
    return Frame(draw.integers(0, 255, (side, side, 3), dtype=np.uint8), xyz, 0, 0, (side, side))


@pytest.mark.parametrize(
    ("name", "role", "options"),
    [
        ("classic", "rgb", {}),
        ("classic", "xyz", {}),
        ("timm:resnet10t", "rgb", TINY),
        ("timm:vit_tiny_patch16_224", "rgb", {**TINY, "layers": [1, 3]}),
        ("normals:resnet10t", "xyz", {**TINY, "layers": ["layer2"]}),
        ("point_mae", "xyz", {"weights": "random", "groups": 20, "neighbours": 12}),
    ],
)
def test_frames_together_are_frames_one_by_one(name: str, role: str, options: dict[str, Any]) -> None:
    extractor = create_extractor(name, role, **options)
    # Photos of two sizes; full clouds, one of eleven points, and one of none.
    frames = [part(0), part(1, side=64), part(2, radius=0.09), part(3), part(4, radius=0.0)]
    fields = extractor.extract_many(frames, SIZE)
    assert len(fields) == len(frames)
    for frame, field in zip(frames, fields, strict=True):
        alone = extractor.extract(frame, SIZE)
        assert field.tokens.shape == alone.tokens.shape
        largest = alone.tokens.abs().max() if alone.tokens.numel() else 0.0
        torch.testing.assert_close(field.tokens, alone.tokens, rtol=0, atol=TOLERANCE * float(largest))
        for same in ("offset", "index", "weight", "valid"):
            assert torch.equal(getattr(field, same), getattr(alone, same))
        assert field.notes == alone.notes
    assert extractor.extract_many(frames[:1], SIZE)[0].tokens.equal(extractor.extract(frames[0], SIZE).tokens)


def test_a_network_sees_a_batch_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = create_extractor("timm:resnet10t", "rgb", **TINY)
    seen = []
    tap = extractor.backbone.tap  # type: ignore[attr-defined]
    monkeypatch.setattr(extractor.backbone, "tap", lambda images: seen.append(images.shape) or tap(images))  # type: ignore[attr-defined]
    extractor.extract_many([part(0), part(1, side=64)], SIZE)
    assert seen == [(2, 3, 64, 64)]


def test_clouds_of_equally_many_groups_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = create_extractor("point_mae", "xyz", weights="random", groups=20, neighbours=12)
    seen = []
    network = extractor.network  # type: ignore[attr-defined]
    monkeypatch.setattr(
        extractor,
        "network",
        lambda clouds, centers, near: seen.append(centers.shape) or network(clouds, centers, near),
    )
    fields = extractor.extract_many([part(0), part(2, radius=0.09), part(1), part(4, radius=0.0)], SIZE)
    few = fields[1].tokens.shape[0]
    assert 1 < few < 20
    assert sorted(seen) == [(1, few, 3), (2, 20, 3)]
    assert [field.notes for field in fields[::2]] == [(), ()]
    assert fields[1].notes == (f"{few} groups of points instead of 20: {few} points are usable",)
    assert fields[3].notes == ("0 groups of points instead of 20: 0 points are usable",)


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "vit_base_patch8_224.dino"])
def test_attention_of_transformers_is_fused(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = 2
    backbone = Backbone(model, weights="random", model_kwargs={"depth": depth, "img_size": 32}, input_size=32)
    calls = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def counted(*arguments: Any, **more: Any) -> Tensor:
        calls.append(1)
        return fused(*arguments, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    backbone.tokens([torch.rand(3, 32, 32)])
    assert len(calls) == depth


def test_autocast_takes_effect_on_cuda_alone() -> None:
    plain, cast = (Backbone("resnet10t", **TINY, autocast=flag) for flag in (False, True))
    image = [torch.rand(3, 64, 64)]
    assert torch.equal(plain.tokens(image), cast.tokens(image))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("model", ["resnet10t", "vit_tiny_patch16_224"])
def test_autocast_on_a_device_rounds_to_bfloat16(model: str) -> None:
    cpu, exact, cast = (Backbone(model, **TINY, autocast=flag) for flag in (False, False, True))
    image = [torch.rand(3, 64, 64)]
    wanted = cpu.tokens(image)
    close, found = (backbone.to("cuda").tokens(image).cpu() for backbone in (exact, cast))
    assert close.dtype == found.dtype == torch.float32
    assert (close - wanted).norm() < 5e-3 * wanted.norm()
    assert (close - wanted).norm() < (found - wanted).norm() < 5e-2 * wanted.norm()


@pytest.fixture
def fresh_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()  # of tests before
    yield
    torch.compiler.reset()


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler here")
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_stages_give_the_same_tokens() -> None:
    kwargs = {"depth": 3, "embed_dim": 24, "num_heads": 2, "img_size": 32}
    options: dict[str, Any] = {"weights": "random", "input_size": 32, "model_kwargs": kwargs}
    plain, compiled = (Backbone("vit_tiny_patch16_224", **options, compile=flag) for flag in (False, True))
    images = [torch.rand(3, 32, 32) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = compiled.tokens(images)
    torch.testing.assert_close(found, plain.tokens(images), rtol=1e-4, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # three blocks, one compilation
    assert compiled.options()["compile"]
    assert all(
        torch.equal(a, b) for a, b in zip(compiled.state().values(), plain.state().values(), strict=True)
    )


@pytest.mark.usefixtures("fresh_compiler")
def test_without_a_compiler_the_network_runs_as_it_is() -> None:
    plain, compiled = (Backbone("resnet10t", **TINY, compile=flag) for flag in (False, True))
    image = [torch.rand(3, 64, 64)]
    with (
        inductor.patch({"cpp.cxx": (None, "/nowhere/g++")}),
        pytest.warns(RuntimeWarning, match="compile: torch.compile does not work here"),
    ):
        found = compiled.tokens(image)
    assert torch.equal(found, plain.tokens(image))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(compiled.tokens(image), found)


def test_stages_with_a_tapped_layer_inside_stay_plain() -> None:
    backbone = Backbone("resnet10t", **TINY, layers=["layer2.0.conv1"], compile=True)
    assert "forward" not in vars(backbone.tap.running.get_submodule("layer2"))
    assert "forward" in vars(backbone.tap.running.get_submodule("layer1"))
