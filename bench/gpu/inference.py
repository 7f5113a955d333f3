"""The race of the whole step after the extractors, in the paper's protocol with the bank of four shots."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from .races import Bench, Race


def build(bench: Bench) -> Race:
    """224×224 pixels, 45 % valid, a quarter replaced; networks untrained, which costs the same time."""
    from cfr_fast.benchmark import dense
    from cfr_fast.benchmark.scene import RGB, SIDE, XYZ, Scene, scene, whole
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

    @torch.no_grad()
    def ours(turn: int) -> tuple[Tensor, Tensor]:
        return model.discrepancy(*inputs[turn], settings)

    @torch.no_grad()
    def plain(turn: int) -> Tensor:
        with torch.device(bench.device):  # it makes its own zeros
            return dense.predict(scenes[turn], model)

    def same() -> None:
        got, replaced = ours(0)
        torch.testing.assert_close(got, plain(0), rtol=0, atol=1e-3)
        with torch.no_grad(), torch.device(bench.device):
            _, xyz, valid = dense.features(scenes[0])
            predicted = torch.nn.functional.normalize(mappers.xyz_to_rgb(xyz[valid]).double(), dim=1)
            bank = torch.nn.functional.normalize(colors.double(), dim=1)
            nearest = torch.cat([1 - (part @ bank.T).amax(dim=1) for part in torch.split(predicted, 4096)])
        mask = torch.zeros(len(nearest), dtype=torch.bool, device=bench.device)
        mask[replaced] = True
        differ = (mask != (nearest >= model.theta)) & ((nearest - model.theta).abs() > 1e-5)
        assert not differ.any(), f"{int(differ.sum())} pixels replaced that should not be, or the reverse"

    what = f"inference after the extractors, paper protocol, a bank of {rows:,} rows"
    bars = {"plain PyTorch fp32, dense": 10.0}
    return Race(what, len(inputs), ours, {"plain PyTorch fp32, dense": plain}, bars, rounds=9, same=same)
