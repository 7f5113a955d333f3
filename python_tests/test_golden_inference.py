"""From the frozen networks' tokens to the map, against the authors' scripts on real samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cfr_fast.extractors import FeatureField
from cfr_fast.extractors.groups import group_field, nearest_groups
from cfr_fast.learned import Learned
from cfr_fast.mappers import CyclicMappers
from cfr_fast.memory import KeyValueBank
from cfr_fast.retriever import AttentionRetriever
from cfr_fast.scoring import image_score, localization_map
from cfr_fast.settings import Settings


@pytest.fixture(scope="module")
def recorded(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "inference.safetensors")


@pytest.fixture(scope="module")
def learned(golden: Path) -> Learned:
    def read(pattern: str) -> dict[str, Tensor]:
        return torch.load(next(golden.glob(pattern)), weights_only=True)

    mappers, retriever = CyclicMappers(768, 1152), AttentionRetriever(1152, 768)
    mappers.rgb_to_xyz.load_state_dict(read("CFR_2Dto3D_*.pth"))
    mappers.xyz_to_rgb.load_state_dict(read("CFR_3Dto2D_*.pth"))
    retriever.load_state_dict(read("ATTN_*.pth"))
    bank = torch.load(golden / "memory_bank_1shot.pt", weights_only=True)
    pairs = KeyValueBank(**read("memory_bank_kv_1shot.pt"))
    return Learned(mappers.eval(), pairs, bank, retriever.eval())


def fields(got: dict[str, Tensor], sample: int) -> tuple[FeatureField, FeatureField]:
    """RGB and 3D features of the 224×224 pixels as the paper's protocol builds them."""
    rgb = got[f"{sample}.rgb_tokens"].permute(1, 2, 0)
    cloud = got[f"{sample}.pc"].permute(1, 2, 0)
    measured = (cloud != 0).all(dim=2)
    points = cloud[measured]
    index, weight = nearest_groups(points, points[got[f"{sample}.center_idx"].long()], expanded=True)
    xyz = group_field(got[f"{sample}.xyz_tokens"].T, index, weight, measured)
    return FeatureField.from_grid(rgb, torch.ones_like(xyz.valid), xyz.shape), xyz


@pytest.mark.parametrize("sample", [0, 1, 2])
def test_map_and_score(recorded: dict[str, Tensor], learned: Learned, sample: int) -> None:
    rgb_field, xyz_field = fields(recorded, sample)
    every = rgb_field.dense()[::970], xyz_field.dense()[::970]
    torch.testing.assert_close(every[0], recorded[f"{sample}.rgb_rows_every_970"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(every[1], recorded[f"{sample}.xyz_rows_every_970"], rtol=0, atol=1e-5)
    valid = xyz_field.valid
    pixel = valid.nonzero()[:, 0]
    rgb, xyz = (field.interpolated.select(pixel).compact() for field in (rgb_field, xyz_field))
    with torch.no_grad():
        distances = learned.distances(xyz)
        torch.testing.assert_close(distances, recorded[f"{sample}.pred_dist"][valid], rtol=0, atol=1e-4)
        for name, theta in zip("ab", recorded["theta"].tolist(), strict=True):
            learned.theta = theta
            found, _ = learned.discrepancy(rgb, xyz, valid.reshape(224, 224), Settings())
            wanted = recorded[f"{sample}.map_{name}"]
            error = (localization_map(found) - wanted).abs() / wanted.max()
            assert error.max() < 1e-3
            assert error[valid.reshape(224, 224)].median() < 1e-5
            assert image_score(found) == pytest.approx(
                float(recorded[f"{sample}.image_score_{name}"]), rel=1e-4
            )
