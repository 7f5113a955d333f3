from __future__ import annotations

import pytest
import torch
from conftest import Race
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from cfr_fast.ops import confidence_filter, farthest_point_sample, loader, reference

SIDE, TOKENS, DIM, BANK = 224, 28, 768, 5017


def pixel_features(seed: int, noise: float) -> Tensor:
    """[50176, 768]: random waves over a smooth latent field, noise of its own for each of 28×28 tokens.

    Tokens become pixels bilinearly. Waves are the same for every seed, so that images resemble each other.
    """
    waves = torch.Generator().manual_seed(0)
    frequency, phase = torch.randn(8, DIM, generator=waves), torch.randn(DIM, generator=waves) * 3
    generator = torch.Generator().manual_seed(seed)
    latent = interpolate(torch.randn(1, 8, 7, 7, generator=generator), size=TOKENS, mode="bicubic")[0]
    tokens = torch.sin(latent.permute(1, 2, 0) @ frequency * 0.5 + phase)
    tokens += noise * torch.randn(tokens.shape, generator=generator)
    pixels = interpolate(tokens.permute(2, 0, 1)[None], size=SIDE, mode="bilinear", align_corners=False)
    return pixels[0].flatten(1).T.contiguous()


def data(kind: str) -> tuple[Tensor, Tensor]:
    """Queries and a bank: a coreset of other images' features, or random rows, where no bound can help."""
    generator = torch.Generator().manual_seed(1)
    if kind == "random":
        both = torch.randn(SIDE**2 + BANK, DIM, generator=generator)
        return both[:-BANK], both[-BANK:]
    noise = {"smooth": 0.3, "noisy": 1.0}[kind]
    pool = torch.cat([pixel_features(seed, noise)[::9] for seed in (1, 2)])
    plane = normalize(pool, dim=1) @ torch.randn(DIM, 32, generator=generator)
    return pixel_features(3, noise), pool[farthest_point_sample(plane, BANK)]


@pytest.mark.parametrize("kind", ["smooth", "noisy", "random"])
def test_confidence_filter(race: Race, kind: str) -> None:
    """Four rows of five are near the bank."""
    assert loader.load() is not None
    query, bank = data(kind)
    unit_query, unit_bank = normalize(query, dim=1), normalize(bank, dim=1)
    nearest = torch.cat([1 - (part @ unit_bank.T).amax(dim=1) for part in unit_query.split(3000)])
    ordered = nearest.sort().values
    at = round(0.8 * len(ordered))
    threshold = float((ordered[at - 1] + ordered[at]) / 2)
    kept = confidence_filter(query, bank, threshold)
    assert torch.equal(kept, reference.confidence_filter(query, bank, threshold))

    race(
        2.0 * len(query) * len(bank) * DIM,
        lambda: confidence_filter(query, bank, threshold),
        exhaustive=lambda: reference.confidence_filter(query, bank, threshold),
    )
