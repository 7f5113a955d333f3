from __future__ import annotations

import torch
from conftest import Race

from cfr_fast.ops import loader, reference, replace_and_score

SIDE, RGB, XYZ = 224, 768, 1152


def test_replace_and_score(race: Race) -> None:
    """Every pixel valid, a quarter replaced."""
    assert loader.load() is not None
    generator = torch.Generator().manual_seed(0)
    rows = SIDE**2
    rgb, xyz = (torch.randn(rows, columns, generator=generator) for columns in (RGB, XYZ))
    rgb_predicted, xyz_predicted = (
        item + 0.3 * torch.randn(item.shape, generator=generator) for item in (rgb, xyz)
    )
    replaced = torch.randperm(rows, generator=generator)[: rows // 4].sort().values
    replacement = torch.randn(len(replaced), RGB, generator=generator)
    valid = torch.ones(SIDE, SIDE, dtype=torch.bool)
    arguments = (rgb_predicted, rgb, xyz_predicted, xyz, replacement, replaced, valid)

    race(
        7.0
        * rows
        * (RGB + XYZ),  # per element: two squares and sums, a scaled difference, its square and sum
        lambda: replace_and_score(*arguments),
        plain=lambda: reference.replace_and_score(*arguments),
    )
