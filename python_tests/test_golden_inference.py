"""From the authors' files and the frozen networks' tokens to the map, against their scripts on real samples."""

from __future__ import annotations

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


def tokens(recorded: dict[str, Tensor], sample: int) -> dict[str, Tensor]:
    return {
        "rgb_tokens": recorded[f"{sample}.rgb_tokens"],
        "xyz_tokens": recorded[f"{sample}.xyz_tokens"],
        "center_index": recorded[f"{sample}.center_idx"].long(),
        "xyz": recorded[f"{sample}.pc"].permute(1, 2, 0),
    }


def test_dense_rows_and_distances(golden: Path, recorded: dict[str, Tensor]) -> None:
    model = CFR.from_authors(**find_files(golden))
    for sample in range(3):
        rgb, xyz = token_fields(**tokens(recorded, sample), expanded=True)
        for name, field in (("rgb", rgb), ("xyz", xyz)):
            e=(field.dense()[::970] - recorded[f"{sample}.{name}_rows_every_970"]).abs().max()
            print(sample,name,float(e))
        pixel = xyz.valid.nonzero()[:, 0]
        found = model.learned.distances(xyz.interpolated.select(pixel))
        e=(found-recorded[f"{sample}.pred_dist"][pixel]).abs(); print('dist',float(e.max()),float(e.median()))


@pytest.mark.parametrize("which", ["a", "b"])
def test_maps_and_scores(golden: Path, recorded: dict[str, Tensor], which: str) -> None:
    theta = float(recorded["theta"]["ab".index(which)])
    model = CFR.from_authors(**find_files(golden), threshold=theta)
    for sample in range(3):
        result = model.predict_tokens(**tokens(recorded, sample))
        wanted = recorded[f"{sample}.map_{which}"]
        error = (torch.from_numpy(result.localization_map) - wanted).abs()/wanted.max()
        print(which, sample, 'map max %.2e med(valid) %.2e'%(error.max(), error[wanted>0].median()), 'share>1e-5 %.5f'%(error>1e-5).float().mean(), 'score', result.score-float(recorded[f"{sample}.image_score_{which}"]), float(recorded[f"{sample}.image_score_{which}"]), result.replaced_fraction)
