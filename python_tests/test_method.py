"""Mappers, banks, retriever and scoring by themselves."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from cfr_fast import InputError
from cfr_fast.benchmark.dense import mapper_losses
from cfr_fast.mappers import CyclicMappers, train_mappers
from cfr_fast.memory import KeyValueBank, build_banks, draw_rows, greedy_coreset
from cfr_fast.ops import Interpolated
from cfr_fast.retriever import train_retriever
from cfr_fast.scoring import image_score, localization_map, score_map
from cfr_fast.settings import Settings


def shots(count: int = 2, rows: int = 60) -> list[tuple[Interpolated, Interpolated]]:
    """3D features that RGB features are a function of, so that there is something to learn."""
    draw = torch.Generator().manual_seed(3)
    mix = torch.randn(12, 8, generator=draw)
    made = []
    for _ in range(count):
        xyz = torch.randn(rows, 12, generator=draw)
        made.append((Interpolated.of(torch.tanh(xyz @ mix)), Interpolated.of(xyz)))
    return made


def test_mappers_learn_both_directions_and_repeat() -> None:
    data = shots()
    pair = train_mappers(data, epochs=150, learning_rate=1e-2, seed=5)
    again = train_mappers(data, epochs=150, learning_rate=1e-2, seed=5)
    other = train_mappers(data, epochs=1, learning_rate=1e-3, seed=6)
    rgb, xyz = data[0]
    assert cosine_similarity(pair.xyz_to_rgb(xyz.tokens), rgb.tokens).mean() > 0.9
    assert cosine_similarity(pair.rgb_to_xyz(rgb.tokens), xyz.tokens).mean() > 0.7
    weights, repeated, others = (p.xyz_to_rgb.w12.weight for p in (pair, again, other))
    assert torch.equal(weights, repeated)
    assert not torch.equal(weights, others)
    assert not any(p.requires_grad for p in pair.parameters())


def test_gradients_on_tokens_are_those_on_pixels() -> None:
    """More pixels than one chunk holds, over few tokens; against autograd on the dense features."""
    draw = torch.Generator().manual_seed(1)
    count, tokens = 4500, 40
    sides = []
    for dim in (6, 8):
        source = torch.randint(0, tokens, (3 * count,), generator=draw)
        weight = torch.rand(3 * count, generator=draw)
        offset = torch.arange(0, 3 * count + 1, 3)
        sides.append(Interpolated(torch.randn(tokens, dim, generator=draw), offset, source, weight))
    pair = CyclicMappers(6, 8)
    losses = pair.accumulate(*sides)
    found = [parameter.grad.clone() for parameter in pair.parameters() if parameter.grad is not None]
    pair.zero_grad()
    wanted = mapper_losses(pair, *(side.dense() for side in sides), torch.ones(count, dtype=torch.bool))
    wanted.sum().backward()
    torch.testing.assert_close(losses, wanted.detach(), rtol=0, atol=1e-6)
    expected = [parameter.grad for parameter in pair.parameters()]
    assert len(found) == len(expected) == 8
    for got, gradient in zip(found, expected, strict=True):
        torch.testing.assert_close(got, gradient, rtol=1e-4, atol=1e-7)


def test_a_random_subset_of_pixels_learns_too() -> None:
    data = shots()
    few = train_mappers(data, epochs=150, learning_rate=1e-2, seed=5, most_pixels=20)
    more = train_mappers(data, epochs=150, learning_rate=1e-2, seed=5, most_pixels=60)
    everything = train_mappers(data, epochs=150, learning_rate=1e-2, seed=5)
    rgb, xyz = data[0]
    assert cosine_similarity(few.xyz_to_rgb(xyz.tokens), rgb.tokens).mean() > 0.8
    same = [torch.equal(a, b) for a, b in zip(more.parameters(), everything.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(few.xyz_to_rgb.w3.weight, more.xyz_to_rgb.w3.weight)


def test_training_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    train_mappers(shots(), epochs=1, learning_rate=1e-3, seed=0)
    bank = KeyValueBank(*(side.tokens for side in reversed(shots()[0])))
    options = {"learning_rate": 1e-3, "most_queries": 40, "width": 8, "normalize_qk": True, "seed": 0}
    train_retriever(shots(), bank, candidates=3, epochs=1, **options)  # type: ignore[arg-type]
    greedy_coreset(Interpolated.of(torch.randn(50, 300, generator=torch.Generator())), 0.1, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("candidates", [3, None])
def test_retriever_learns(candidates: int | None) -> None:
    data = shots()
    rgb, xyz = data[0]
    bank = KeyValueBank(xyz.tokens, rgb.tokens)

    def error(epochs: int) -> float:
        retriever = train_retriever(
            data,
            bank,
            candidates=candidates,
            epochs=epochs,
            learning_rate=1e-2,
            most_queries=1000,
            width=16,
            normalize_qk=False,
            seed=1,
        )
        index = torch.arange(xyz.pixels)[:, None]
        output = retriever(xyz, bank, index) if candidates else retriever.attend_bank(xyz, bank)
        return float(1 - cosine_similarity(output, rgb.tokens).mean())

    assert error(60) < 0.5 * error(1)


def test_coreset_covers_better_than_chance() -> None:
    features = torch.randn(400, 200, generator=torch.Generator().manual_seed(0))
    features[:300] *= 0.05  # most rows are alike
    rows = Interpolated.of(features)
    picks = greedy_coreset(rows, 0.1, seed=0)
    assert len(picks) == len(set(picks.tolist())) == 40
    assert (picks >= 300).sum() >= 35
    assert torch.equal(picks, greedy_coreset(rows, 0.1, seed=0))
    assert not torch.equal(picks, greedy_coreset(rows, 0.1, seed=1))


@pytest.mark.parametrize(
    ("rows", "ratio", "message"), [(0, 0.1, "features"), (5, 0.0, "ratio"), (5, 1.1, "ratio")]
)
def test_coreset_errors(rows: int, ratio: float, message: str) -> None:
    with pytest.raises(InputError, match=f"{message}: expected"):
        greedy_coreset(Interpolated.of(torch.zeros(rows, 3)), ratio, 0)


def test_tiny_banks_keep_at_least_one_row() -> None:
    pairs, rgb_bank = build_banks(
        [Interpolated.of(torch.ones(3, 4))], [Interpolated.of(torch.ones(3, 2))], 0.1, 0
    )
    assert pairs.keys.shape == (1, 2)
    assert pairs.values.shape == rgb_bank.shape == (1, 4)


def test_draw_rows_keeps_pairs_together() -> None:
    keys = torch.arange(50.0)[:, None]
    drawn = draw_rows(KeyValueBank(keys, keys * 2), 20, seed=0)
    assert drawn.keys.shape == (20, 1)
    assert torch.equal(drawn.values, drawn.keys * 2)
    assert torch.equal(drawn.keys, drawn.keys.unique(dim=0))
    assert draw_rows(KeyValueBank(keys, keys), 50, seed=0).keys is keys


def test_scoring_normalises_by_the_nonzero_mean() -> None:
    found = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    assert torch.equal(localization_map(found), found / 2)
    torch.testing.assert_close(score_map(found), found / 2**0.5)
    assert image_score(found) == pytest.approx(3 / 2**0.5)


@pytest.mark.parametrize("shape", [(0, 0), (4, 5)])
def test_scoring_of_nothing_is_zero(shape: tuple[int, int]) -> None:
    found = torch.zeros(shape)
    assert image_score(found) == 0
    assert torch.equal(localization_map(found), found)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replacement": "magic"}, "replacement: expected one of attention"),
        ({"size": 3}, "size: expected a whole number ≥ 16, got 3"),
        ({"size": 64.5}, "size: expected a whole number"),
        ({"coreset": 0}, r"coreset: expected a share in \(0, 1\], got 0"),
        ({"mapper_lr": -1.0}, "mapper_lr: expected a number > 0"),
        ({"mapper_pixels": 0}, "mapper_pixels: expected a whole number ≥ 1, or None, got 0"),
        ({"mapper_epoch": 5}, "did you mean 'mapper_epochs'"),
        (
            {"calibration_views": 0},
            "calibration_views: expected at least 1, unless",
        ),
        ({"seed": -1}, "seed: expected a whole number ≥ 0"),
    ],
)
def test_settings_say_what_is_wrong(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings.create(**values)


def test_settings_without_views_when_levels_are_given() -> None:
    given = {"theta": 0.4, "threshold": 1.0, "score": "discrepancy"}
    assert Settings.create(calibration_views=0, **given).calibration_views == 0
