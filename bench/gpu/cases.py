"""Small cases of every op, around the sizes of tiles, and how a result is judged against float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from cfr_fast import ops
from cfr_fast.ops import Interpolated, reference

Arguments = tuple[Any, ...]
Judge = Callable[[Any, Any, Arguments], None]


@dataclass(frozen=True)
class Case:
    """One call: op, float32 arguments on the CPU, judge of (got, wanted, float64 arguments), and keywords."""

    op: str
    sizes: str
    arguments: Arguments
    judge: Judge
    keywords: dict[str, str] = field(default_factory=dict)


class Draw:
    """Random tensors from one seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def below(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator)

    def interpolated(self, pixels: int, tokens: int, dim: int) -> Interpolated:
        """Up to five entries a pixel, some pixels without any."""
        count = self.below(6, pixels)
        offset = torch.cat([torch.zeros(1, dtype=torch.int64), count.cumsum(0)])
        entries = int(offset[-1])
        weight = torch.rand(entries, generator=self.generator)
        return Interpolated(self.normal(tokens, dim), offset, self.below(tokens, entries), weight)


def close(rtol: float, atol: float) -> Judge:
    """Every number near its counterpart."""

    def judge(got: Tensor, wanted: Tensor, _: Arguments) -> None:
        torch.testing.assert_close(got.double(), wanted, rtol=rtol, atol=atol)

    return judge


def cosines(query: Tensor, keys: Tensor, index: Tensor) -> Tensor:
    return (normalize(query, dim=1)[:, None] * normalize(keys, dim=1)[index]).sum(dim=2)


def judge_topk(got: Any, wanted: Any, arguments: Arguments) -> None:
    query, keys, _ = arguments
    torch.testing.assert_close(got[0].double(), wanted[0], rtol=0, atol=2e-6)
    torch.testing.assert_close(cosines(query, keys, got[1]), wanted[0], rtol=0, atol=2e-6)
    distinct(got[1], len(keys))


def judge_topk_interpolated(got: Tensor, wanted: Tensor, arguments: Arguments) -> None:
    features, keys, _, *listed = arguments
    rows = reference.interpolate_tokens(*features, *listed)
    real = int(listed[1]) if listed else len(rows)
    padded(got, real, len(rows))
    got, wanted, rows = got[:real], wanted[:real], rows[:real]
    torch.testing.assert_close(cosines(rows, keys, got), cosines(rows, keys, wanted), rtol=0, atol=2e-6)
    distinct(got, len(keys))


def distinct(index: Tensor, rows: int) -> None:
    ordered = index.sort(dim=1).values
    assert (ordered[:, 1:] != ordered[:, :-1]).all(), "a row twice"
    assert index.numel() == 0 or (index.min() >= 0 and index.max() < rows), "a row out of range"


def judge_filter(got: Tensor, wanted: Tensor, arguments: Arguments) -> None:
    """The same rows, except where float64 itself lies within 1e-5 of the threshold."""
    query, bank, threshold, valid = arguments
    assert torch.equal(got, got.unique()), "not ascending"
    here, there = (
        torch.zeros(len(query), dtype=torch.bool).index_fill_(0, rows, True) for rows in (got, wanted)
    )
    nearest = 1 - (normalize(query, dim=1) @ normalize(bank, dim=1).T).amax(dim=1)
    differ = (here != there) & ((nearest - threshold).abs() > 1e-5)
    assert not differ.any(), f"{int(differ.sum())} rows differ"
    assert valid is None or valid[got].all(), "an invalid row"


def judge_padded_filter(got: Any, wanted: Any, arguments: Arguments) -> None:
    real = int(got[1])
    padded(got[0], real, len(arguments[0]))
    judge_filter(got[0][:real], wanted[0][: int(wanted[1])], arguments)


def padded(index: Tensor, real: int, size: int) -> None:
    assert len(index) == size, "another number of rows"
    assert not index[real:].any(), "no zeros behind the real rows"


def judge_farthest(got: Tensor, wanted: Tensor, arguments: Arguments) -> None:
    points, count, initial = arguments
    assert got.shape == wanted.shape == (count,)
    anchor = points.new_full((len(points),), torch.inf) if initial is None else initial.square()
    for step, pick in enumerate(got):
        if step > 0 or initial is not None:
            assert anchor[pick] >= anchor.max() * (1 - 1e-6), f"pick {step} is not the farthest"
        anchor = torch.minimum(anchor, (points - points[pick]).square().sum(dim=1))


def judge_three(got: Any, wanted: Any, arguments: Arguments) -> None:
    points, centers = arguments
    squared = reference.squared_distances(centers, points)
    nearest = squared.gather(1, got[0])
    torch.testing.assert_close(nearest, squared.gather(1, wanted[0]), rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(got[1].double(), wanted[1], rtol=1e-4, atol=1e-6)
    distinct(got[0], len(centers))


def judge_knn(got: Tensor, wanted: Tensor, arguments: Arguments) -> None:
    points, centers, _ = arguments
    squared = reference.squared_distances(points, centers)
    torch.testing.assert_close(squared.gather(1, got), squared.gather(1, wanted), rtol=1e-5, atol=1e-12)
    distinct(got, len(points))


def listings(rows: int) -> list[tuple[Tensor, ...]]:
    """Without a count, and with one of two rows in three."""
    return [(), (torch.tensor([2 * rows // 3]),)]


def cases(seed: int, few: bool) -> Iterator[Case]:
    """All cases; with `few`, one small case of each op."""
    draw = Draw(seed)
    for n, m, d, k in [(65, 130, 33, 3), (1, 1, 33, 1), (127, 129, 768, 1), (300, 257, 1152, 32)][
        : 1 if few else 4
    ]:
        arguments = draw.normal(n, d), draw.normal(m, d), k
        for precision in ("bf16", "tf32"):
            sizes = f"{n}×{m}×{d}, k={k}, {precision}"
            yield Case("topk_cosine", sizes, arguments, judge_topk, {"precision": precision})
    for n, m, d in [(65, 130, 33), (1, 1, 33), (129, 257, 768), (700, 1025, 128)][: 1 if few else 4]:
        query, bank = draw.normal(n, d), draw.normal(m, d)
        threshold = (
            float(1 - (normalize(query, dim=1) @ normalize(bank, dim=1).T).amax(dim=1).median()) + 1e-4
        )
        for valid in (None, torch.rand(n, generator=draw.generator) < 0.7)[: 1 if few else 2]:
            arguments = (query, bank, threshold, valid)
            yield Case("confidence_filter", f"{n}×{m}×{d}", arguments, judge_filter)
            yield Case("confidence_filter_padded", f"{n}×{m}×{d}", arguments, judge_padded_filter)
    for n, m, d, dv in [(33, 65, 32, 48), (1, 1, 16, 1), (129, 257, 128, 768), (65, 300, 128, 1152)][
        : 1 if few else 4
    ]:
        query, keys, values = draw.normal(n, d), draw.normal(m, d), draw.normal(m, dv)
        yield Case("bank_attention", f"{n}×{m}, {d}, {dv}", (query, keys, values, d**-0.5), close(1e-4, 1e-5))
        index = draw.below(m, n, 3)
        for count in listings(n):
            arguments = (query, keys, values, index, d**-0.5, *count)
            yield Case("topk_attention", f"{n}×3, {d}, {dv}", arguments, close(1e-4, 1e-5))
    for pixels, tokens, d in [(70, 20, 33), (1, 1, 1), (257, 30, 768), (1030, 90, 1152)][: 1 if few else 4]:
        features = draw.interpolated(pixels, tokens, d)
        keys = draw.normal(50, d)
        weights = draw.normal(2 * d), draw.normal(45, d) / d**0.5, draw.normal(45)
        wide = draw.interpolated(pixels, tokens, 2 * d)
        for count in listings(pixels):
            listed = (draw.below(pixels, pixels), *count) if count else ()
            which = f"{pixels}×{tokens}×{d}{', listed' if listed else ''}"
            yield Case("interpolate_tokens", which, (features, *listed), close(1e-5, 1e-6))
            arguments = (features, keys, 3, *listed)
            yield Case("topk_interpolated", f"{which}, k=3", arguments, judge_topk_interpolated)
            yield Case("geglu_map", f"{which}→45", (wide, *weights, *count), close(2e-5, 2e-5))
    for height, width, rgb, xyz in [(9, 11, 33, 35), (1, 1, 1, 1), (40, 33, 768, 1152)][: 1 if few else 3]:
        valid = torch.rand(height, width, generator=draw.generator) < 0.8
        rows = int(valid.sum())
        replaced = torch.randperm(rows, generator=draw.generator)[: rows // 4].sort().values
        sources = draw.normal(rows, rgb), draw.interpolated(rows, 12, rgb), draw.normal(rows, xyz)
        shapes, put = draw.interpolated(rows, 15, xyz), draw.normal(len(replaced), rgb)
        for count in listings(len(replaced)):
            masks = valid.reshape(1, height, width) if count else valid
            arguments = (*sources, shapes, put, replaced, masks, *count)
            yield Case("replace_and_score", f"{height}×{width}, {rgb} + {xyz}", arguments, close(1e-5, 2e-6))
    sizes = [(300, 3, 20), (1, 3, 1), (2049, 128, 60), (5000, 33, 30), (70_000, 3, 40)]
    for n, d, count in sizes[: 1 if few else 5]:
        initial = draw.normal(n).abs() * d**0.5
        for start in (None, initial)[: 1 if few else 2]:
            arguments = (draw.normal(n, d), count, start)
            yield Case("farthest_point_sample", f"{n}×{d}→{count}", arguments, judge_farthest)
    for n, g in [(65, 130), (1, 3), (257, 1025), (5000, 1024)][: 1 if few else 4]:
        yield Case("three_nn", f"{n}×{g}", (draw.normal(n, 3), draw.normal(g, 3)), judge_three)
    for n, g, k in [(1100, 3, 17), (1, 1, 1), (4099, 65, 128), (3000, 5, 1024), (40_000, 7, 128)][
        : 1 if few else 5
    ]:
        yield Case("knn", f"{g}×{n}, k={k}", (draw.normal(n, 3), draw.normal(g, 3), k), judge_knn)


def run(case: Case, arguments: Arguments) -> Any:
    """The public op; float64 goes through the reference."""
    return getattr(ops, case.op)(*arguments, **case.keywords)
