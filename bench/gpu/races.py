"""What is raced on a card, beside what, and what is promised of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import normalize, scaled_dot_product_attention

from cfr_fast import ops
from cfr_fast.ops import reference

from .timing import Contender, sets_for


@dataclass(frozen=True)
class Race:
    """Ours and its peers, ready to run.

    Args:
        what: the work, with its sizes.
        sets: number of input sets; contenders take the number of one.
        ours: our contender.
        peers: the others by name.
        bars: peers by name, with how many times as fast as they we promise to be.
        parts: peers that do only one in so many parts of the work.
        seconds: promised time, or None.
        work: floating-point operations of the plain way, or None.
        traffic: bytes that have to be read and written at least, or None.
        share: promised share of the copy's bandwidth, or None.
        rounds: most rounds, or None for the timer's own.
        same: raises AssertionError unless ours and the peers agree.
    """

    what: str
    sets: int
    ours: Contender
    peers: dict[str, Contender]
    bars: dict[str, float] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    work: float | None = None
    traffic: float | None = None
    share: float | None = None
    rounds: int | None = None
    same: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Bench:
    """Where races run and how large they are: `tiny` is for trying the script out on a processor."""

    device: torch.device
    tiny: bool

    def size(self, full: int, tiny: int) -> int:
        return tiny if self.tiny else full

    def normal(self, *shape: int, seed: int = 0) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(*shape, generator=generator, device=self.device)

    def sets(self, *shapes: tuple[int, ...]) -> tuple[list[list[Tensor]], int]:
        """As many sets of random matrices as the cache cannot hold, and their number."""
        count = sets_for(self.device, 4 * sum(torch.Size(shape).numel() for shape in shapes))
        made = [
            [self.normal(*shape, seed=100 * turn + place) for place, shape in enumerate(shapes)]
            for turn in range(count)
        ]
        return made, count

    def compiled(self, function: Callable[..., object]) -> Callable[..., object] | None:
        """The function through torch.compile; None where that is not asked of a processor."""
        return None if self.tiny else torch.compile(function)


def plain_topk(query: Tensor, keys: Tensor, k: int) -> object:
    return (normalize(query, dim=1) @ normalize(keys, dim=1).T).topk(k, dim=1)


def topk_cosine(bench: Bench) -> Race:
    n, m, d, k = bench.size(50_176, 200), bench.size(20_070, 90), bench.size(768, 33), 3
    sets, count = bench.sets((n, d), (m, d))
    halves = [[part.bfloat16() for part in each] for each in sets]
    peers: dict[str, Contender] = {
        "torch.mm bf16": lambda turn: torch.mm(halves[turn][0], halves[turn][1].T),
        "mm + topk fp32": lambda turn: plain_topk(*sets[turn], k),
    }
    if compiled := bench.compiled(plain_topk):
        peers["mm + topk fp32, compiled"] = lambda turn: compiled(*sets[turn], k)

    def same() -> None:
        query, keys = sets[0][0][:512], sets[0][1]
        got = ops.topk_cosine(query, keys, k)[0]
        wanted = reference.topk_cosine(query.double(), keys.double(), k)[0]
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=2e-6)

    bars = {"torch.mm bf16": 1 / 1.4, "mm + topk fp32": 4.0}
    what = f"topk_cosine {n:,} × {m:,} × {d}, k = {k}"
    ours = lambda turn: ops.topk_cosine(*sets[turn], k)  # noqa: E731
    return Race(what, count, ours, peers, bars, work=2.0 * n * m * d, same=same)


def topk_precisions(bench: Bench) -> Race:
    """Smooth rows: many keys are nearly equal, and what products cannot tell apart is searched one by one."""
    from cfr_fast.benchmark.kernels import pixel_features

    n, m, k = bench.size(50_176, 200), bench.size(20_070, 90), 3
    keys = pixel_features(1, 0.3)[:m].to(bench.device)
    queries = [pixel_features(seed, 0.3)[:n].to(bench.device) for seed in (2, 3)]

    def same() -> None:
        one, other = (ops.topk_cosine(queries[0], keys, k, precision=name) for name in ("bf16", "tf32"))
        assert all(map(torch.equal, one, other)), "the answers differ"

    return Race(
        f"topk_cosine tf32 {n:,} × {m:,} × 768, k = {k}, smooth rows",
        2,
        lambda turn: ops.topk_cosine(queries[turn], keys, k, precision="tf32"),
        {"bf16": lambda turn: ops.topk_cosine(queries[turn], keys, k)},
        work=2.0 * n * m * 768,
        same=same,
    )


def confidence_filter(bench: Bench) -> Race:
    """Four rows of five are reliable, features smooth as those of images are."""
    from cfr_fast.benchmark.kernels import pixel_features

    n, m = bench.size(50_176, 300), bench.size(20_070, 90)
    pool = torch.cat([pixel_features(seed, 0.3)[:: bench.size(5, 500)] for seed in (1, 2)])
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))[:m]
    bank = pool[order].to(bench.device)
    queries = [pixel_features(seed, 0.3)[:n].to(bench.device) for seed in (3, 4)]
    thresholds = []
    for query in queries:
        nearest = 1 - ops.topk_cosine(query, bank, 1)[0][:, 0]
        thresholds.append(float(nearest.sort().values[round(0.8 * n)]))

    def ours(turn: int) -> object:
        return ops.confidence_filter(queries[turn], bank, thresholds[turn])

    def exhaustive(turn: int) -> Tensor:
        return reference.confidence_filter(queries[turn], bank, thresholds[turn])

    def same() -> None:
        got, wanted = ops.confidence_filter(queries[0], bank, thresholds[0]), exhaustive(0)
        differ = set(got.tolist()) ^ set(wanted.tolist())
        assert len(differ) <= 5, f"{len(differ)} rows differ"

    peers: dict[str, Contender] = {
        "topk_cosine k = 1": lambda turn: ops.topk_cosine(queries[turn], bank, 1),
        "exhaustive, plain PyTorch": exhaustive,
    }
    what = f"confidence_filter {n:,} × {len(bank):,} × 768, 80 % reliable, smooth rows"
    work = 2.0 * n * len(bank) * 768
    return Race(what, 2, ours, peers, {"topk_cosine k = 1": 3.0}, work=work, same=same)


def bank_attention(bench: Bench) -> Race:
    n, m, d, wide = bench.size(12_544, 70), bench.size(20_070, 90), bench.size(128, 16), bench.size(768, 24)
    sets, count = bench.sets((n, d), (m, d), (m, wide))
    halves = [[part.bfloat16() for part in each] for each in sets]
    scale = d**-0.5

    def fused(parts: list[Tensor]) -> Tensor:
        query, keys, values = (part[None, None] for part in parts)
        return scaled_dot_product_attention(query, keys, values, scale=scale)[0, 0]

    peers: dict[str, Contender] = {
        "scaled_dot_product_attention fp32": lambda turn: fused(sets[turn]),
        "scaled_dot_product_attention bf16": lambda turn: fused(halves[turn]),
    }

    def same() -> None:
        torch.testing.assert_close(ops.bank_attention(*sets[0], scale), fused(sets[0]), rtol=1e-3, atol=1e-4)

    what = f"bank_attention {n:,} × {m:,}, d {d}, dv {wide}"
    bars = {"scaled_dot_product_attention fp32": 3.0}
    ours = lambda turn: ops.bank_attention(*sets[turn], scale)  # noqa: E731
    return Race(what, count, ours, peers, bars, work=2.0 * n * m * (d + wide), same=same)


def replace_and_score(bench: Bench) -> Race:
    side, rgb, xyz = bench.size(224, 20), bench.size(768, 24), bench.size(1152, 36)
    rows = side * side
    sets, count = bench.sets((rows, rgb), (rows, rgb), (rows, xyz), (rows, xyz), (rows // 4, rgb))
    replaced = torch.randperm(rows, generator=torch.Generator().manual_seed(0))[: rows // 4].sort().values
    last = replaced.to(bench.device), torch.ones(side, side, dtype=torch.bool, device=bench.device)

    def same() -> None:
        wanted = reference.replace_and_score(*sets[0], *last)
        torch.testing.assert_close(ops.replace_and_score(*sets[0], *last), wanted, rtol=1e-4, atol=1e-5)

    peers: dict[str, Contender] = {
        "plain PyTorch": lambda turn: reference.replace_and_score(*sets[turn], *last)
    }
    if compiled := bench.compiled(reference.replace_and_score):
        peers["plain PyTorch, compiled"] = lambda turn: compiled(*sets[turn], *last)
    read = 4.0 * rows * 2 * (rgb + xyz)
    what = f"replace_and_score {rows:,} × ({rgb} + {xyz:,})"
    ours = lambda turn: ops.replace_and_score(*sets[turn], *last)  # noqa: E731
    return Race(what, count, ours, peers, traffic=read, share=0.7, same=same)


def coreset(bench: Bench) -> Race:
    """Every pick reads all rows once; the plain loop is timed over a hundredth of the picks."""
    n, d, count = bench.size(200_704, 500), bench.size(128, 20), bench.size(20_070, 100)
    points = bench.normal(n, d)
    part = max(1, count // 100)
    what = f"coreset {n:,} × {d} → {count:,}"
    name = f"plain loop, from {part:,} picks"

    def plain(_: int) -> object:
        return reference.farthest_point_sample(points, part)

    def same() -> None:
        got, wanted = ops.farthest_point_sample(points, part), reference.farthest_point_sample(points, part)
        assert int((got != wanted).sum()) <= part // 10, "the picks differ"

    return Race(
        what,
        1,
        lambda _: ops.farthest_point_sample(points, count),
        {name: plain},
        parts={name: count / part},
        seconds=2.0,
        traffic=4.0 * n * (d + 1) * count,
        rounds=3,
        same=same,
    )


def points(bench: Bench) -> list[Race]:
    """The ops on clouds, without a bar."""
    n, g, k = bench.size(25_000, 400), bench.size(1024, 30), bench.size(128, 10)
    clouds, count = bench.sets((n, 3))
    cloud = [each[0] for each in clouds]

    def product(turn: int) -> object:
        centers, all_points = cloud[turn][:g], cloud[turn]
        squared = (
            centers.square().sum(1, keepdim=True) - 2 * centers @ all_points.T + all_points.square().sum(1)
        )
        return squared.topk(k, dim=1, largest=False).indices

    def sort(turn: int) -> object:
        squared = (cloud[turn][:, None] - cloud[turn][None, :g]).square().sum(dim=2)
        return squared.topk(3, dim=1, largest=False)

    def same_rows() -> None:
        few = cloud[0][:64]
        near = ops.knn(cloud[0], few, k), *ops.three_nn(few, cloud[0][:g])
        here, some = cloud[0].cpu(), few.cpu()
        assert torch.equal(near[0].cpu(), reference.knn(here, some, k)), "other neighbours"
        assert torch.equal(near[1].cpu(), reference.three_nn(some, here[:g])[0]), "other centres"

    work = 8.0 * n * g
    return [
        Race(f"knn {g:,} × {n:,}, k = {k}", count, lambda turn: ops.knn(cloud[turn], cloud[turn][:g], k),
             {"mm + topk": product}, work=work, same=same_rows),
        Race(f"three_nn {n:,} × {g:,}", count, lambda turn: ops.three_nn(cloud[turn], cloud[turn][:g]),
             {"differences + topk": sort}, work=work, same=same_rows),
        Race(f"farthest_point_sample {n:,} × 3 → {g:,}", count,
             lambda turn: ops.farthest_point_sample(cloud[turn], g),
             {"plain loop": lambda turn: reference.farthest_point_sample(cloud[turn], g)}, rounds=3),
    ]  # fmt: skip
