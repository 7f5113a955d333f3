"""Races of the whole method against plain PyTorch on dense features, in the paper's protocol."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from cfr_fast.benchmark import dense, memory
from cfr_fast.benchmark.race import Race, Stage
from cfr_fast.benchmark.scene import RGB, XYZ, learned, scene, whole
from cfr_fast.mappers import CyclicMappers, seeded
from cfr_fast.memory import build_banks
from cfr_fast.retriever import AttentionRetriever, find_candidates
from cfr_fast.settings import Settings

EPOCHS = 100
PEERS = ("plain PyTorch, dense", "the same, valid pixels only")


def _ours() -> Tensor:
    rgb, xyz, valid = scene(1).fields()
    return learned().discrepancy(rgb, xyz, valid, Settings())[0]


def predict() -> Race:
    """From tokens to the map: 224×224 pixels, 45 % of them valid, a bank of one shot, a quarter replaced."""
    model = learned()

    @torch.no_grad()
    def same() -> None:
        torch.testing.assert_close(_ours(), dense.predict(scene(1), model), rtol=0, atol=1e-4)

    peers = {
        PEERS[0]: torch.no_grad()(lambda: dense.predict(scene(1), model)),
        PEERS[1]: torch.no_grad()(lambda: dense.predict(scene(1), model, valid_only=True)),
    }
    stage = Stage(torch.no_grad()(_ours), peers, rounds=3)
    return Race("predict after the extractors, paper protocol", (stage,), bars={PEERS[0]: 8.0}, same=same)


def predict_memory() -> Race:
    """Peak memory of the same."""
    model = learned()
    peers = {
        PEERS[0]: lambda: memory.peak(torch.no_grad()(lambda: dense.predict(scene(1), model))),
        PEERS[1]: lambda: memory.peak(
            torch.no_grad()(lambda: dense.predict(scene(1), model, valid_only=True))
        ),
    }
    stage = Stage(lambda: memory.peak(torch.no_grad()(_ours)), peers, rounds=3)
    what = "peak memory of predict beyond the extractors"
    return Race(what, (stage,), bars={PEERS[0]: 4.0}, unit="bytes")


def mapper_epoch() -> Race:
    """One step of both mappers on one shot, at the paper's sizes."""
    epoch, dense_epoch, valid = _mappers()
    everything, kept = torch.arange(len(valid)), valid.nonzero()[:, 0]

    def same() -> None:
        for _ in range(2):
            _same_losses(epoch(), dense_epoch(everything))

    peers = {PEERS[0]: lambda: dense_epoch(everything), PEERS[1]: lambda: dense_epoch(kept)}
    stage = Stage(epoch, peers, rounds=2, warm=False)
    return Race("one epoch of both mappers, 1 shot", (stage,), same=same)


def _mappers() -> tuple[Callable[[], Tensor], Callable[[Tensor], Tensor], Tensor]:
    """Two pairs that start alike: a step of ours, a dense one on listed rows, and the valid pixels."""
    part = scene(0)
    rgb, xyz, _ = part.fields()
    dense_rgb, dense_xyz, valid = dense.features(part)
    pair = seeded(CyclicMappers, RGB, XYZ, seed=0)
    assert isinstance(pair, CyclicMappers)
    pairs = pair, copy.deepcopy(pair)
    adams = [torch.optim.Adam(each.parameters()) for each in pairs]

    def epoch() -> Tensor:
        adams[0].zero_grad()
        losses = pairs[0].accumulate(rgb, xyz)
        adams[0].step()
        return losses

    def dense_epoch(rows: Tensor) -> Tensor:
        adams[1].zero_grad()
        kept = valid[rows]
        losses = dense.mapper_losses(pairs[1], dense_rgb[rows], dense_xyz[rows], kept)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        adams[1].step()
        return losses.detach()

    return epoch, dense_epoch, valid


def _same_losses(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def fit() -> Race:
    """Both mappers, both banks and the retriever from one shot; an epoch counts a hundred times."""
    part = scene(0)
    rgb, xyz, _ = part.fields()
    dense_rgb, dense_xyz, valid = dense.features(part)
    epoch, dense_epoch, _ = _mappers()
    everywhere = whole(part)
    starts = torch.randperm(len(valid), generator=torch.Generator().manual_seed(0))[:10]
    plane = torch.randn(XYZ, 128, generator=torch.Generator().manual_seed(1)) / XYZ**0.5

    def dense_bank(features: Tensor, weight: Tensor) -> Tensor:
        return features[dense.coreset(features @ weight, starts, len(valid) // 10)]

    def dense_banks() -> None:
        dense_bank(dense_xyz, plane)
        dense_bank(dense_rgb, plane[:RGB])

    model = learned()
    assert model.pairs is not None
    retriever = seeded(AttentionRetriever, XYZ, RGB, seed=0)
    assert isinstance(retriever, AttentionRetriever)
    adam = torch.optim.Adam(retriever.parameters(), lr=1e-4)
    drawn = torch.arange(min(20_000, rgb.pixels))
    candidates = find_candidates(xyz.select(drawn), model.pairs, 3)

    def loss(output: Tensor, observed: Tensor) -> None:
        adam.zero_grad()
        error = 1 - torch.nn.functional.cosine_similarity(output, observed, dim=1, eps=1e-6).mean()
        error.backward()  # type: ignore[no-untyped-call]
        adam.step()

    def attention() -> None:
        assert model.pairs is not None
        loss(retriever(xyz.select(drawn), model.pairs, candidates), rgb.select(drawn).dense())

    valid_rows = valid.nonzero()[:, 0]

    def dense_attention() -> None:
        assert model.pairs is not None
        rows = valid_rows[drawn]
        loss(dense.attend(retriever, dense_xyz[rows], model.pairs, candidates), dense_rgb[rows])

    all_rows, peer = torch.arange(len(valid)), PEERS[0]
    stages = (
        Stage(epoch, {peer: lambda: dense_epoch(all_rows)}, EPOCHS, rounds=2, warm=False),
        Stage(
            lambda: build_banks([everywhere[0]], [everywhere[1]], 0.1, 0),
            {peer: dense_banks},
            rounds=1,
            warm=False,
        ),
        Stage(attention, {peer: dense_attention}, EPOCHS, rounds=3),
    )
    what = f"fit after the extractors, paper protocol, 1 shot ({EPOCHS} × one epoch of each)"
    return Race(what, stages, bars={peer: 2.5}, same=lambda: _same_losses(epoch(), dense_epoch(all_rows)))
