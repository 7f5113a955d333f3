"""Races of single ops against plain PyTorch, the bare product and faiss."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize, scaled_dot_product_attention

from cfr_fast import ops
from cfr_fast.benchmark import dense
from cfr_fast.benchmark.race import Contender, Race, Stage
from cfr_fast.ops import reference

SIDE, PATCHES, DIM, BANK = 224, 28, 768, 5017


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers from a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pixel_features(seed: int, noise: float) -> Tensor:
    """[50176, 768]: random waves over a smooth latent field, noise of its own for each of 28×28 tokens.

    Tokens become pixels bilinearly. Waves are the same for every seed, so that images resemble each other.
    """
    frequency, phase = randn(8, DIM), 3 * randn(DIM, seed=1)
    generator = torch.Generator().manual_seed(seed)
    latent = interpolate(torch.randn(1, 8, 7, 7, generator=generator), size=PATCHES, mode="bicubic")[0]
    tokens = torch.sin(latent.permute(1, 2, 0) @ frequency * 0.5 + phase)
    tokens += noise * torch.randn(tokens.shape, generator=generator)
    pixels = interpolate(tokens.permute(2, 0, 1)[None], size=SIDE, mode="bilinear", align_corners=False)
    return pixels[0].flatten(1).T.contiguous()


@cache
def features_and_bank(kind: str) -> tuple[Tensor, Tensor]:
    """[50176, 768] queries and a bank of 5,017: a coreset of other images, or random rows."""
    if kind == "random":
        both = randn(SIDE**2 + BANK, DIM, seed=1)
        return both[:-BANK], both[-BANK:]
    noise = {"smooth": 0.3, "noisy": 1.0}[kind]
    pool = torch.cat([pixel_features(seed, noise)[::9] for seed in (1, 2)])
    plane = normalize(pool, dim=1) @ randn(DIM, 32, seed=4)
    return pixel_features(3, noise), pool[ops.farthest_point_sample(plane, BANK)]


def topk_cosine(n: int, m: int, k: int, kind: str = "random") -> Race:
    """The bare product is the least that an exhaustive search does; it leaves [N, M] behind, unsearched."""
    if kind == "random":
        query, keys = randn(n, DIM), randn(m, DIM, seed=1)
    else:
        query, keys = (
            part[:size].contiguous() for part, size in zip(features_and_bank(kind), (n, m), strict=True)
        )
    peers: dict[str, Contender] = {
        "torch.mm alone": lambda: torch.mm(query, keys.T),
        "torch.mm + topk": lambda: (normalize(query, dim=1) @ normalize(keys, dim=1).T).topk(k, dim=1),
    }
    bars = {"torch.mm alone": 1.25}
    faiss = _faiss()
    if faiss is not None:
        index = faiss.IndexFlatIP(DIM)
        index.add(normalize(keys, dim=1).numpy())
        unit_query = normalize(query, dim=1).numpy()

        def search() -> object:
            faiss.omp_set_num_threads(torch.get_num_threads())
            return index.search(unit_query, k)

        peers["faiss-cpu IndexFlatIP"] = search
        bars["faiss-cpu IndexFlatIP"] = 1.25

    def same() -> None:
        got, rows = ops.topk_cosine(query, keys, k)
        wanted, _ = reference.topk_cosine(query, keys, k)
        torch.testing.assert_close(got, wanted, rtol=0, atol=2e-6)
        pairs = normalize(keys, dim=1)[rows] @ normalize(query, dim=1)[:, :, None]
        torch.testing.assert_close(got, pairs[:, :, 0], rtol=0, atol=2e-6)

    what = f"topk_cosine {n:,} × {m:,} × {DIM}, k = {k}, {kind} rows"
    stage = Stage(lambda: ops.topk_cosine(query, keys, k), peers)
    return Race(what, (stage,), work=2.0 * n * m * DIM, bars=bars, same=same)


def confidence_filter(kind: str) -> Race:
    """Four rows of five are near the bank."""
    query, bank = features_and_bank(kind)
    unit_query, unit_bank = normalize(query, dim=1), normalize(bank, dim=1)
    nearest = torch.cat([1 - (part @ unit_bank.T).amax(dim=1) for part in torch.split(unit_query, 3000)])
    ordered = nearest.sort().values
    at = round(0.8 * len(ordered))
    threshold = float((ordered[at - 1] + ordered[at]) / 2)

    def same() -> None:
        kept = ops.confidence_filter(query, bank, threshold)
        assert torch.equal(kept, reference.confidence_filter(query, bank, threshold))

    peers = {"exhaustive": lambda: reference.confidence_filter(query, bank, threshold)}
    stage = Stage(lambda: ops.confidence_filter(query, bank, threshold), peers)
    what = f"confidence_filter {len(query):,} × {len(bank):,} × {DIM}, 80 % reliable, {kind} rows"
    bars = {"exhaustive": 5.0} if kind != "random" else {}
    return Race(what, (stage,), work=2.0 * len(query) * len(bank) * DIM, bars=bars, same=same)


def topk_attention(values: int, gradients: bool) -> Race:
    """20,000 queries, 3 rows each; the peer gathers by `embedding`, whose gradient has a fixed order."""
    queries, k = 20_000, 3
    inputs = [randn(queries, 128), randn(BANK, 128, seed=1), randn(BANK, values, seed=2)]
    index = torch.randint(0, BANK, (queries, k), generator=torch.Generator().manual_seed(4))

    def ours(query: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
        return ops.topk_attention(query, keys, rows, index, 128**-0.5)

    def plain(query: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
        return reference.topk_attention(query, keys, rows, index, 128**-0.5)

    what = f"topk_attention {queries:,} × {k}, d 128, dv {values}"
    return _attention(what, 2.0 * queries * k, values, gradients, inputs, ours, {"plain PyTorch": plain})


def bank_attention(values: int, gradients: bool) -> Race:
    """5,000 queries over the whole bank; torch's fused kernel is a peer too."""
    queries = 5_000
    inputs = [randn(queries, 128), randn(BANK, 128, seed=1), randn(BANK, values, seed=2)]

    def ours(query: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
        return ops.bank_attention(query, keys, rows, 128**-0.5)

    def plain(query: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
        return reference.bank_attention(query, keys, rows, 128**-0.5)

    def fused(query: Tensor, keys: Tensor, rows: Tensor) -> Tensor:
        four = query[None, None], keys[None, None], rows[None, None]  # axes, as torch's fused kernel wants
        return scaled_dot_product_attention(*four, scale=128**-0.5)[0, 0]

    what = f"bank_attention {queries:,} × {BANK:,}, d 128, dv {values}"
    peers = {"plain PyTorch": plain, "scaled_dot_product_attention": fused}
    return _attention(what, 2.0 * queries * BANK, values, gradients, inputs, ours, peers)


def _attention(
    what: str,
    pairs: float,
    values: int,
    gradients: bool,
    inputs: list[Tensor],
    ours: Callable[..., Tensor],
    peers: dict[str, Callable[..., Tensor]],
) -> Race:
    grad = randn(len(inputs[0]), values, seed=3)

    def contender(attend: Callable[..., Tensor]) -> Contender:
        if not gradients:
            return lambda: attend(*inputs)
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        return lambda: torch.autograd.grad(attend(*leaves), leaves, grad)

    def same() -> None:
        for peer in peers.values():
            torch.testing.assert_close(ours(*inputs), peer(*inputs), rtol=1e-4, atol=1e-5)

    work = pairs * (4 * 128 + 3 * values if gradients else 128 + values)
    stage = Stage(contender(ours), {name: contender(peer) for name, peer in peers.items()})
    return Race(what + (", with gradients" if gradients else ""), (stage,), work=work, same=same)


def replace_and_score() -> Race:
    """Every pixel valid, a quarter replaced."""
    rows, xyz_dim = SIDE**2, 1152
    rgb, xyz = randn(rows, DIM), randn(rows, xyz_dim, seed=1)
    rgb_predicted, xyz_predicted = (
        rgb + 0.3 * randn(rows, DIM, seed=2),
        xyz + 0.3 * randn(rows, xyz_dim, seed=3),
    )
    replaced = torch.randperm(rows, generator=torch.Generator().manual_seed(0))[: rows // 4].sort().values
    replacement, valid = randn(len(replaced), DIM, seed=4), torch.ones(SIDE, SIDE, dtype=torch.bool)
    arguments = (rgb_predicted, rgb, xyz_predicted, xyz, replacement, replaced, valid)

    def same() -> None:
        expected = reference.replace_and_score(*arguments)
        torch.testing.assert_close(ops.replace_and_score(*arguments), expected, rtol=1e-5, atol=1e-5)

    peers = {"plain PyTorch": lambda: reference.replace_and_score(*arguments)}
    stage = Stage(lambda: ops.replace_and_score(*arguments), peers)
    read = 4.0 * rows * 2 * (DIM + xyz_dim)
    bars = {"plain PyTorch": 4.0}
    return Race(
        f"replace_and_score {rows:,} × ({DIM} + {xyz_dim:,})", (stage,), traffic=read, bars=bars, same=same
    )


def coreset(kind: str) -> Race:
    """One shot's bank, a tenth of its pixels; minutes, most of them for the plain loop."""
    rows, dim = SIDE**2, 128
    if kind == "smooth":
        tokens = torch.nn.functional.avg_pool2d(randn(1, dim, 30, 30), 3, 1)
        points = interpolate(tokens, (SIDE, SIDE), mode="bilinear")[0].flatten(1).T.contiguous()
    else:
        points = randn(rows, dim)
    starts = torch.arange(10) * 5000
    picks: dict[str, Tensor] = {}

    def ours() -> None:
        from cfr_fast.memory import coreset_from

        picks["ours"] = coreset_from(points, starts, rows // 10)

    def plain() -> None:
        picks["plain"] = dense.coreset(points, starts, rows // 10)
        assert torch.equal(picks["ours"], picks["plain"]), "the picks differ"

    stage = Stage(ours, {"plain loop": plain}, rounds=1, warm=False)
    what = f"coreset {rows:,} × {dim} → {rows // 10:,}, {kind} rows"
    return Race(what, (stage,), work=3.0 * rows * (rows // 10) * dim, bars={"plain loop": 6.0})


@cache
def _cloud() -> tuple[Tensor, Tensor]:
    points = randn(25_000, 3)
    return points, points[torch.randperm(len(points), generator=torch.Generator().manual_seed(1))[:1024]]


def three_nn() -> Race:
    """25,000 points, 1,024 centres."""
    points, centers = _cloud()

    def sort() -> tuple[Tensor, Tensor]:
        nearest, index = (points[:, None] - centers[None]).square().sum(dim=2).sort(dim=1)
        inverse = 1 / (nearest[:, :3] + 1e-8)
        return index[:, :3], inverse / inverse.sum(dim=1, keepdim=True)

    def same() -> None:
        torch.testing.assert_close(ops.three_nn(points, centers)[1], sort()[1], rtol=1e-4, atol=1e-6)

    stage = Stage(lambda: ops.three_nn(points, centers), {"sort, plain PyTorch": sort}, rounds=3)
    bars = {"sort, plain PyTorch": 50.0}
    return Race("three_nn 25,000 × 1,024", (stage,), work=8.0 * 25_000 * 1024, bars=bars, same=same)


def knn() -> Race:
    """128 neighbours of 1,024 centres among 25,000 points."""
    points, centers = _cloud()

    def product() -> Tensor:
        squared = centers.square().sum(1, keepdim=True) - 2 * centers @ points.T + points.square().sum(1)
        return squared.topk(128, dim=1, largest=False).indices

    def same() -> None:
        got, wanted = (
            (centers[:, None] - points[index]).square().sum(dim=2).sort(dim=1).values
            for index in (ops.knn(points, centers, 128), product())
        )
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)

    stage = Stage(lambda: ops.knn(points, centers, 128), {"mm + topk, plain PyTorch": product})
    bars = {"mm + topk, plain PyTorch": 5.0}
    return Race("knn 1,024 × 25,000, k = 128", (stage,), work=8.0 * 25_000 * 1024, bars=bars, same=same)


def _faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ImportError:
        return None
