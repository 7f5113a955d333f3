"""The race of the whole step after the extractors, in the paper's protocol with the bank of four shots."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, normalize

from .races import Bench, Race
from .timing import Contender

BATCH = 8


def build(bench: Bench) -> list[Race]:
    """224×224 pixels, 45 % valid, a quarter replaced; networks untrained, which costs the same time.

    Ours is the recorded step, one sample and a batch at a time; the same op by op is a peer.
    """
    from cfr_fast.benchmark import dense
    from cfr_fast.benchmark.scene import RGB, SIDE, XYZ, Scene, scene, whole
    from cfr_fast.inference_graph import InferenceGraph
    from cfr_fast.learned import Learned
    from cfr_fast.mappers import CyclicMappers, seeded
    from cfr_fast.memory import KeyValueBank
    from cfr_fast.retriever import AttentionRetriever
    from cfr_fast.settings import Settings

    settings, rows = Settings(), bench.size(4 * SIDE * SIDE // 10, 200)
    generator = torch.Generator().manual_seed(0)
    banks: list[tuple[Tensor, ...]] = []
    for seed in range(10, 14):  # a random tenth of four other scenes' pixels stands for their coreset
        drawn = torch.randperm(SIDE * SIDE, generator=generator)[: -(-rows // 4)]
        rgb, xyz = whole(scene(seed))
        banks.append((rgb.select(drawn).dense(), xyz.select(drawn).dense()))
    colors, shapes = (torch.cat(parts)[:rows].to(bench.device) for parts in zip(*banks, strict=True))
    mappers = seeded(CyclicMappers, RGB, XYZ, seed=0)
    retriever = seeded(AttentionRetriever, XYZ, RGB, seed=0)
    assert isinstance(mappers, CyclicMappers)
    assert isinstance(retriever, AttentionRetriever)
    for network in (mappers, retriever):
        network.to(bench.device).requires_grad_(False)
    model = Learned(mappers, KeyValueBank(shapes, colors), colors, retriever)

    seeds = range(1, bench.size(4, 2))
    scenes = [
        Scene(**{each.name: getattr(scene(seed), each.name).to(bench.device) for each in fields(Scene)})
        for seed in seeds
    ]
    inputs = []
    for seed in seeds:
        rgb, xyz, valid = scene(seed).fields()
        inputs.append(tuple(type(part)(*(t.to(bench.device) for t in part)) for part in (rgb, xyz)))
        inputs[-1] += (valid.to(bench.device),)
    with torch.no_grad():
        distances = model.distances(inputs[0][1])
        ordered = distances.sort().values
        at = round(0.75 * len(ordered))
        model.theta = float((ordered[at - 1] + ordered[at]) / 2)

    graph, many = InferenceGraph(model, settings.candidates), bench.size(BATCH, 2)

    def batch(turn: int, size: int) -> list[list[Any]]:
        chosen = [inputs[(turn + place) % len(inputs)] for place in range(size)]
        return [list(parts) for parts in zip(*chosen, strict=True)]

    @torch.no_grad()
    def op_by_op(turn: int, size: int) -> list[tuple[Tensor, Tensor]]:
        return model.discrepancy_many(*batch(turn, size), settings)

    @torch.no_grad()
    def plain(turn: int) -> Tensor:
        with torch.device(bench.device):  # it makes its own zeros
            return dense.predict(scenes[turn], model)

    @torch.no_grad()
    def margins(turn: int) -> tuple[Tensor, Tensor]:
        """Mask of the valid pixels [P], and how far their exact distances lie above θ."""
        with torch.device(bench.device):
            _, xyz, valid = dense.features(scenes[turn])
            predicted = normalize(mappers.xyz_to_rgb(xyz[valid]).double(), dim=1)
            bank = normalize(colors.double(), dim=1)
            nearest = [1 - (part @ bank.T).amax(dim=1) for part in torch.split(predicted, 4096)]
        return valid, torch.cat(nearest) - model.theta

    def same() -> None:
        for size in (1, many):
            for place, (got, replaced) in enumerate(graph.run(*batch(0, size))):
                turn = place % len(inputs)
                valid, margin = margins(turn)
                unreliable = torch.zeros_like(margin, dtype=torch.bool).index_fill_(0, replaced, True)
                differ = unreliable != (margin >= 0)
                wrong = int((differ & (margin.abs() > 1e-5)).sum())
                assert wrong == 0, f"{wrong} pixels replaced that should not be, or the reverse"
                # Rounding decides on θ itself; a map's value is the mean of 5×5 pixels.
                either = torch.zeros(SIDE * SIDE, device=bench.device)
                either[valid] = differ.float()
                decided = max_pool2d(either.view(1, SIDE, SIDE), 5, stride=1, padding=2)[0] == 0
                torch.testing.assert_close(got[decided], plain(turn)[decided], rtol=0, atol=1e-3)
        assert graph.recorded or bench.device.type != "cuda", "the step was not recorded"

    def race(size: int) -> Race:
        what = f"inference after the extractors, paper protocol, a bank of {rows:,} rows, {size} a batch"
        dense_name, ops_name = "plain PyTorch fp32, dense", "ours, op by op"
        if size > 1:
            dense_name += ", from one sample"
        peers: dict[str, Contender] = {dense_name: plain, ops_name: lambda turn: op_by_op(turn, size)}
        return Race(
            what, len(inputs), lambda turn: graph.run(*batch(turn, size)), peers, {dense_name: 10.0},
            parts={dense_name: size}, rounds=9, same=same if size == 1 else lambda: None,
        )  # fmt: skip

    return [race(1), race(many)]
