"""The preset of frozen networks: one network for both kinds, its layers, its folded form, from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cfr_fast import CFR, InputError, Sample
from cfr_fast.cli.main import main
from cfr_fast.data.synthetic import make_sample
from cfr_fast.extractors import create_pair
from cfr_fast.extractors.backbone import Backbone, TimmExtractor
from cfr_fast.extractors.folded import folded
from cfr_fast.extractors.normals import NormalsExtractor

TINY: dict[str, Any] = {"weights": "random", "input_size": 96}
QUICK: dict[str, Any] = {
    "size": 48,
    "background": "none",
    "shot_views": 2,
    "calibration_views": 2,
    "mapper_epochs": 2,
    "attention_epochs": 2,
}


def part(index: int, split: str = "train") -> Sample:
    return make_sample("cookie", index, split=split, defect="good", seed=0, size=96)


def pair(xyz_options: dict[str, Any]) -> tuple[TimmExtractor, NormalsExtractor]:
    rgb, xyz = create_pair("timm:resnet10t", "normals:resnet10t", TINY, xyz_options)
    assert isinstance(rgb, TimmExtractor)
    assert isinstance(xyz, NormalsExtractor)
    return rgb, xyz


@pytest.mark.parametrize("xyz_options", [{}, {"weights": "random"}, {"window": 7.0}])
def test_photo_and_normals_share_a_network(xyz_options: dict[str, Any]) -> None:
    rgb, xyz = pair(xyz_options)
    assert xyz.backbone is rgb.backbone
    assert xyz.window == xyz_options.get("window", 5.0)


def test_another_option_makes_another_network_that_is_otherwise_alike() -> None:
    rgb, xyz = pair({"input_size": 64})
    assert xyz.backbone is not rgb.backbone
    assert (rgb.backbone.input_size, xyz.backbone.input_size) == (96, 64)
    assert torch.equal(rgb.state()["conv1.0.weight"], xyz.state()["conv1.0.weight"])


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ("resnet10t", ("layer2", "layer3")),
        ("mobilenetv2_100", ("blocks.2", "blocks.3")),
        ("vit_tiny_patch16_224", ("blocks.11",)),
    ],
)
def test_local_layers_are_the_first_of_stride_8_and_of_16(model: str, layers: tuple[str, ...]) -> None:
    assert Backbone(model, weights="random", input_size=96, layers="local").tap.layers == layers


def test_an_unknown_word_for_layers_is_refused() -> None:
    with pytest.raises(InputError, match="layers"):
        Backbone("resnet10t", **TINY, layers="globe")


def test_layers_are_balanced_only_where_asked() -> None:
    image = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0))
    plain, even = (
        Backbone("resnet10t", **TINY, layers="local", balanced=balanced).tokens([image])[0]
        for balanced in (False, True)
    )
    assert plain.shape == even.shape
    # The finest layer is not resized, so that its norm at every position is what balancing makes it.
    width = Backbone("resnet10t", **TINY, layers=["layer2"]).tokens([image]).shape[-1]
    torch.testing.assert_close(
        even[..., :width].norm(dim=2), torch.full(even.shape[:2], (even.shape[2] / 2) ** 0.5)
    )
    assert float(plain[..., :width].norm(dim=2).std()) > 1e-3


def test_options_come_back_with_the_saved_network() -> None:
    options = Backbone("resnet10t", **TINY, layers="local", balanced=False).options()
    assert options["balanced"] is False
    assert options["layers"] == ["layer2", "layer3"]


# resnet10t's stem ends with a convolution whose batch-norm belongs to another module: that one stays.
@pytest.mark.parametrize(("model", "left"), [("mobilenetv2_100", 0), ("resnet10t", 1)])
def test_the_folded_network_gives_the_same(model: str, left: int) -> None:
    backbone = Backbone(model, weights="random", input_size=64, layers="local")
    with torch.no_grad():
        for module in backbone.tap.network.modules():
            if isinstance(module, nn.BatchNorm2d):  # random networks come with trivial statistics
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2)
    backbone.tap.running = backbone.tap.network
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    plain = backbone.tap(image)
    backbone.tap.fold(64)
    assert backbone.tap.running is not backbone.tap.network
    assert sum(isinstance(module, nn.BatchNorm2d) for module in _used(backbone)) == left
    scale = float(plain.abs().max())
    torch.testing.assert_close(backbone.tap(image), plain, atol=1e-5 * scale, rtol=1e-4)


def _used(backbone: Backbone) -> list[nn.Module]:
    """Modules of the folded network that run up to its last layer."""
    called: list[nn.Module] = []
    handles = [
        module.register_forward_pre_hook(lambda module, _: called.append(module))
        for module in backbone.tap.running.modules()
    ]
    backbone.tap(torch.zeros(1, 3, 64, 64))
    for handle in handles:
        handle.remove()
    return called


def test_a_network_whose_modules_run_in_another_order_is_left_as_it_is() -> None:
    class Crossed(nn.Module):
        """The batch-norm named after a convolution sees the input instead."""

        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.Sequential(nn.Sequential())
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.bn = nn.BatchNorm2d(3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            stage: torch.Tensor = self.stages(self.conv(self.bn(images)))
            return stage

    from cfr_fast.extractors.layers import LayerTap

    network = Crossed().eval()
    network.bn.running_mean = torch.tensor([1.0, 2.0, 3.0])
    network.bn.weight.data.fill_(2.0)
    tap = LayerTap(network, ["stages.0"], 32)
    tap.fold(32)
    assert tap.running is network


def test_a_network_without_batch_norms_is_its_own_folded_form() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert folded(network) is network


def test_the_preset_from_end_to_end(tmp_path: Path) -> None:
    model = CFR.preset("pretrained", rgb="timm:resnet10t", rgb_options=TINY, progress=False, **QUICK)
    wanted = model.settings
    assert wanted.xyz == "normals:resnet10t"
    assert wanted.rgb_options == {"layers": "local", "balanced": False, **TINY}
    assert (wanted.score, wanted.crop, wanted.turns, wanted.false_alarm) == ("calibrated", True, True, 0.01)
    result = model.fit([part(0), part(1)]).predict(part(0, "test"))
    path = tmp_path / "model.safetensors"
    model.save(path)
    again = CFR.load(path, device="cpu", progress=False).predict(part(0, "test"))
    assert again.score == result.score
    assert np.array_equal(again.anomaly_map, result.anomaly_map)


def test_weights_are_one_option_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", "--data", str(tmp_path), "--category", "x", "-o", str(tmp_path / "m.safetensors")]
    missing = tmp_path / "none.safetensors"
    assert main(["synth", "--out", str(tmp_path / "set"), "--category", "cookie", "--size", "96"]) == 0
    arguments[2], arguments[4] = str(tmp_path / "set"), "cookie"
    assert main([*arguments, "--preset", "pretrained", "--weights", str(missing)]) == 2
    assert str(missing) in capsys.readouterr().err.replace("\n", "")
