"""From the authors' files and the frozen networks' tokens to the map, against their scripts on real samples.

Every implementation of the ops has to agree: the reference, each CPU variant of the native library, and CUDA
where there is a device. Bounds are what they reach, with some room. They rest on the float32 habits that
imported models follow (`nearest_groups`, expanded); torch's sort, which decides ties, may differ on other
processors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cfr_fast import CFR
from cfr_fast.authors import find_files
from cfr_fast.extractors.tokens import token_fields


@pytest.fixture(scope="module")
def recorded(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "inference.safetensors")


Models = Callable[[str], list[CFR]]


@pytest.fixture(scope="module")
def models(golden: Path, recorded: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Models:
    """On a device: as imported, at θ = a; and at θ = b, after a way through a model file."""
    path = tmp_path_factory.mktemp("imported") / "model.safetensors"
    theta_a, theta_b = recorded["theta"].tolist()
    CFR.from_authors(**find_files(golden), threshold=theta_b, device="cpu").save(path)

    @cache
    def on(device: str) -> list[CFR]:
        a = CFR.from_authors(**find_files(golden), threshold=theta_a, device=device)
        return [a, CFR.load(path, device=device)]

    return on


def tokens(recorded: dict[str, Tensor], sample: int) -> dict[str, Tensor]:
    return {
        "rgb_tokens": recorded[f"{sample}.rgb_tokens"],
        "xyz_tokens": recorded[f"{sample}.xyz_tokens"],
        "center_index": recorded[f"{sample}.center_idx"].long(),
        "xyz": recorded[f"{sample}.pc"].permute(1, 2, 0),
    }


@pytest.mark.parametrize("sample", [0, 1, 2])
def test_dense_rows_and_distances(
    recorded: dict[str, Tensor], models: Models, device_of_backend: str, sample: int
) -> None:
    there = {name: value.to(device_of_backend) for name, value in tokens(recorded, sample).items()}
    rgb, xyz = token_fields(**there, expanded=True)
    for name, field in (("rgb", rgb), ("xyz", xyz)):
        wanted = recorded[f"{sample}.{name}_rows_every_970"]
        torch.testing.assert_close(field.dense()[::970].cpu(), wanted, rtol=0, atol=2e-6)
    pixel = xyz.valid.nonzero()[:, 0]
    found = models(device_of_backend)[0].learned.distances(xyz.interpolated.select(pixel)).cpu()
    torch.testing.assert_close(found, recorded[f"{sample}.pred_dist"][pixel.cpu()], rtol=0, atol=2e-6)


@pytest.mark.parametrize("sample", [0, 1, 2])
@pytest.mark.parametrize("which", [0, 1])
def test_maps_and_scores(
    recorded: dict[str, Tensor], models: Models, device_of_backend: str, which: int, sample: int
) -> None:
    result = models(device_of_backend)[which].predict_tokens(**tokens(recorded, sample), name="part")
    wanted = recorded[f"{sample}.map_{'ab'[which]}"]
    error = (torch.from_numpy(result.localization_map) - wanted).abs() / wanted.max()
    assert error.max() <= 1e-4
    assert error[wanted > 0].median() <= 1e-6
    score = float(recorded[f"{sample}.image_score_{'ab'[which]}"])
    assert result.score == pytest.approx(score, rel=0, abs=2e-6)
    assert 0.005 < result.replaced_fraction < (0.02, 0.35)[which]
    assert result.name == "part"
    assert result.anomaly_map.max() == pytest.approx(result.score)
    assert (result.label, result.mask.any()) == (False, False)  # the scripts have no image threshold


@pytest.mark.parametrize("which", [0, 1])
def test_exact_distances_move_the_maps_a_little(
    recorded: dict[str, Tensor], models: Models, which: int
) -> None:
    model = models("cpu")[which]
    exact = CFR(**model.settings.to_dict() | {"expanded_distances": False}, device="cpu")
    exact._learned = model.learned
    moved = []
    for sample in range(3):
        found = exact.predict_tokens(**tokens(recorded, sample)).localization_map
        wanted = recorded[f"{sample}.map_{'ab'[which]}"]
        moved.append(float((torch.from_numpy(found) - wanted).abs().max() / wanted.max()))
    assert 5e-4 < max(moved) <= (6e-3, 2e-2)[which], moved
