"""Lists whose number of real rows only the device knows: the same answers as for rows picked on the host."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import emulated
import pytest
import torch
from tolerances import TOLERANCE
from torch import Tensor

from cfr_fast import InputError, ops
from cfr_fast.ops import Interpolated, loader, reference

Run = Callable[..., Any]
ARGUMENTS = {
    "interpolate_tokens": 6, "geglu_map": 8, "topk_interpolated": 8, "topk_attention": 6,
    "replace_and_score": 14, "confidence_filter_padded": 4,
}  # fmt: skip


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pixels(count: int, tokens: int, dim: int, seed: int = 0, spare: int = 40) -> Interpolated:
    """0 to 5 entries a pixel, and some behind the last that belong to none."""
    draw = torch.Generator().manual_seed(seed)
    offset = torch.cat([torch.zeros(1, dtype=torch.int64), torch.randint(0, 6, (count,), generator=draw)])
    offset = offset.cumsum(0)
    entries = int(offset[-1]) + spare
    source = torch.randint(0, tokens, (entries,), generator=draw)
    return Interpolated(randn(tokens, dim, seed=seed), offset, source, torch.rand(entries, generator=draw))


def number(count: int) -> Tensor:
    return torch.tensor([count])


def filled(real: Tensor, size: int, rest: float) -> Tensor:
    """The rows, and behind them what nobody may look at."""
    others = real.new_full((size - len(real), *real.shape[1:]), rest)
    return torch.cat([real, others])


def moved(item: Any, device: str) -> Any:
    return item.to(device) if isinstance(item, Tensor) else item


def on_device(name: str, *arguments: Any) -> Any:
    found = getattr(torch.ops.cfr_fast, name)(*(moved(item, "cuda") for item in arguments))
    return tuple(each.cpu() for each in found) if isinstance(found, tuple) else found.cpu()


def in_emulation(name: str, *arguments: Any) -> Any:
    kernel = getattr(emulated.ops(), f"{name}_cuda")
    return kernel(*arguments, *[None] * (ARGUMENTS[name] - len(arguments)), 0)


DEVICE = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(params=["native", "emulated", pytest.param("device", marks=DEVICE)])
def run(request: pytest.FixtureRequest) -> Run:
    """An op by name on plain arguments, over memory that held NaN."""
    loader.ready()

    def call(name: str, *arguments: Any) -> Any:
        stale = [torch.full((size,), torch.nan) for size in (8, 100, 2210, 2275, 70 * 34)]
        del stale
        if request.param == "native":
            return getattr(torch.ops.cfr_fast, name)(*arguments)
        return (in_emulation if request.param == "emulated" else on_device)(name, *arguments)

    return call


LISTED = 67
COUNTS = [0, 1, 33, 64, 66, LISTED]
ROWS = torch.randint(0, 70, (LISTED,), generator=torch.Generator().manual_seed(3))
WEIGHTS = randn(34, seed=1), randn(30, 17, seed=2) * 0.2, randn(30, seed=3)


def zeros_behind(found: Tensor, count: int) -> bool:
    return torch.equal(found[count:], torch.zeros_like(found[count:]))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("rest", [-7, 10**12])
def test_pixels_of_a_list(run: Run, count: int, rest: int) -> None:
    features, keys = pixels(70, 20, 34), randn(300, 34, seed=4)
    rows = filled(ROWS[:count], LISTED, rest)
    for name, more in (("interpolate_tokens", ()), ("topk_interpolated", (keys, 3))):
        everything = run(name, *features, *more)
        got = run(name, *features, *more, rows, number(count))
        assert torch.equal(got[:count], everything[ROWS[:count]])
        assert zeros_behind(got, count)
        assert torch.equal(run(name, *features, *more, ROWS), everything[ROWS])
        assert torch.equal(run(name, *features, *more, None, number(count))[:count], everything[:count])


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 70])
def test_geglu_map_of_the_first_pixels(run: Run, count: int) -> None:
    features = pixels(70, 20, 34)
    got = run("geglu_map", *features, *WEIGHTS, number(count))
    assert torch.equal(got[:count], run("geglu_map", *features, *WEIGHTS)[:count])
    assert zeros_behind(got, count)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("k", [0, 3, 40])
def test_topk_attention_of_the_first_queries(run: Run, count: int, k: int) -> None:
    query, keys, values = randn(count, 33), randn(50, 33, seed=1), randn(50, 34, seed=2)
    index = torch.randint(0, 50, (count, k), generator=torch.Generator().manual_seed(1))
    expected = run("topk_attention", query, keys, values, index, 0.3)
    padded = filled(query, LISTED, torch.nan), keys, values, filled(index, LISTED, 10**12), 0.3
    got = run("topk_attention", *padded, number(count))
    assert torch.equal(got[:count], expected)
    assert zeros_behind(got, count)


def batch(images: int, extra: int) -> tuple[list[Any], list[list[Any]]]:
    """Arguments of replace_and_score for several images with `extra` unused rows, and those of each alone."""
    parts, sides = [], []
    for image in range(images):
        valid = randn(9, 11, seed=image) < (0.3, -9.0, 9.0)[image]  # some, none, all
        rows = int(valid.sum())
        rgb, xyz = pixels(rows, 12, 33, image, 0), pixels(rows, 9, 20, image + 7, 0)
        replaced = torch.arange(0, rows, 3)
        predicted = randn(rows, 33, seed=8), randn(rows, 20, seed=9)
        sides.append((rgb, xyz))
        parts.append([predicted[0], *rgb, predicted[1], *xyz, randn(len(replaced), 33), replaced, valid])
    starts = [0, *accumulate(len(part[0]) for part in parts)][:-1]
    rgb, xyz = (Interpolated.joined([side[place] for side in sides]) for place in range(2))
    together = [torch.cat([part[place] for part in parts]) for place in (0, 5, 10)]
    shifted = torch.cat([part[11] + start for part, start in zip(parts, starts, strict=True)])

    def longer(side: Interpolated) -> Interpolated:
        return side._replace(offset=torch.cat([side.offset, side.offset[-1:].expand(extra)]))

    padded = [filled(item, len(item) + extra, torch.nan) for item in together]
    arguments = [padded[0], *longer(rgb), padded[1], *longer(xyz), padded[2]]
    arguments += [filled(shifted, len(shifted) + extra, -3), torch.stack([part[12] for part in parts])]
    return [*arguments, number(len(shifted))], parts


@pytest.mark.parametrize(("images", "extra"), [(1, 0), (1, 5), (3, 0), (3, 40)])
def test_replace_and_score_of_several_images(run: Run, images: int, extra: int) -> None:
    """Each is filtered by itself, and rows and replacements behind the last do not show."""
    arguments, parts = batch(images, extra)
    got = run("replace_and_score", *arguments)
    assert torch.equal(got, torch.stack([run("replace_and_score", *part) for part in parts]))
    double = [moved(item.double() if item.is_floating_point() else item, "cpu") for item in arguments]
    rgb, xyz = (reference.interpolate_tokens(*double[at : at + 4]) for at in (1, 6))
    expected = reference.replace_and_score(double[0], rgb, double[5], xyz, *double[10:])
    torch.testing.assert_close(got.double(), expected, **TOLERANCE["replace_and_score"])
    if extra == 0:
        assert torch.equal(run("replace_and_score", *arguments[:-1]), got)


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 257, 600])
def test_confidence_filter_padded(run: Run, rows: int) -> None:
    query, bank = randn(rows, 12), randn(7, 12, seed=1)
    valid = randn(rows, seed=2) > -0.5
    for threshold in (-1.0, 0.6, 3.0):
        expected = ops.confidence_filter(query, bank, threshold, valid)
        index, count = run("confidence_filter_padded", query, bank, threshold, valid)
        assert count.tolist() == [len(expected)]
        assert torch.equal(index, filled(expected, rows, 0))
    index, count = run("confidence_filter_padded", query, bank[:0], 0.3, None)
    assert count.tolist() == [rows]
    assert torch.equal(index, torch.arange(rows))


def test_float64_goes_through_the_reference() -> None:
    features = pixels(70, 20, 34)
    wide = features._replace(tokens=features.tokens.double(), weight=features.weight.double())
    rows, keys = filled(ROWS[:5], LISTED, -1), randn(50, 34)
    for op, more in ((ops.interpolate_tokens, ()), (ops.topk_interpolated, (keys, 3))):
        exact = [item.double() if isinstance(item, Tensor) else item for item in more]
        got, expected = (
            op(each, *extra, rows, number(5)) for each, extra in ((features, more), (wide, exact))
        )
        torch.testing.assert_close(got.double(), expected.double(), **TOLERANCE["interpolate_tokens"])
    got = ops.geglu_map(wide, *(item.double() for item in WEIGHTS), number(9))
    torch.testing.assert_close(
        ops.geglu_map(features, *WEIGHTS, number(9)).double(), got, **TOLERANCE["geglu_map"]
    )
    query, bank = randn(40, 12), randn(7, 12, seed=1)
    expected = ops.confidence_filter_padded(query, bank, 0.6)
    assert all(map(torch.equal, ops.confidence_filter_padded(query.double(), bank.double(), 0.6), expected))
    assert 0 < int(expected[1]) < 40


@pytest.mark.parametrize("count", [0, 5, LISTED])
def test_gradient_of_listed_pixels(count: int) -> None:
    features, towards = pixels(70, 20, 34), randn(LISTED, 34, seed=6)
    rows = filled(ROWS[:count], LISTED, -7)
    grads = []
    for dtype in (torch.float32, torch.float64):
        tokens = features.tokens.to(dtype).requires_grad_()
        side = features._replace(tokens=tokens, weight=features.weight.to(dtype))
        dense = ops.interpolate_tokens(side, rows, number(count))
        grads.append(torch.autograd.grad(dense, tokens, towards.to(dtype))[0])
    torch.testing.assert_close(grads[0].double(), grads[1], rtol=1e-5, atol=1e-5)
    assert (grads[0].abs().sum() > 0) == (count > 0)


def test_gradient_of_no_pixels_over_entries_of_none() -> None:
    features = pixels(0, 4, 3)
    tokens = features.tokens.requires_grad_()
    (grad,) = torch.autograd.grad(features._replace(tokens=tokens).dense().sum(), tokens)
    assert torch.equal(grad, torch.zeros(4, 3))


@pytest.mark.parametrize("count", [0, 5, 9])
def test_gradient_of_the_first_queries(count: int) -> None:
    query, keys, values = randn(9, 33), randn(50, 33, seed=1), randn(50, 34, seed=2)
    index = filled(torch.arange(3 * count).reshape(count, 3), 9, 10**12)
    grad = randn(9, 34, seed=4)
    op = torch.ops.cfr_fast.topk_attention_backward
    got = op(filled(grad[:count], 9, torch.nan), query, keys, values, index, 0.3, number(count))
    expected = op(grad[:count], query[:count], keys, values, index[:count], 0.3)
    assert torch.equal(got[0], filled(expected[0], 9, 0))
    assert all(map(torch.equal, got[1:], expected[1:]))
    leaf = query.clone().requires_grad_()
    found = ops.topk_attention(leaf, keys, values, index, 0.3, number(count))
    assert torch.equal(torch.autograd.grad(found, leaf, grad)[0], got[0])
    double = [item.double() for item in (filled(grad[:count], 9, torch.nan), query, keys, values)]
    exact = reference.topk_attention_backward(*double, index, 0.3, number(count))
    for ours, wanted in zip(got, exact, strict=True):
        torch.testing.assert_close(ours.double(), wanted, **TOLERANCE["topk_attention.gradient"])


def calls() -> dict[str, tuple[Any, ...]]:
    """Every op with its list and count."""
    features, rows = pixels(70, 20, 34), filled(ROWS[:5], LISTED, -7)
    query, keys, values = randn(9, 33), randn(50, 33, seed=1), randn(50, 34, seed=2)
    index = torch.arange(27).reshape(9, 3)
    return {
        "interpolate_tokens": (*features, rows, number(5)),
        "geglu_map": (*features, *WEIGHTS, number(5)),
        "topk_interpolated": (*features, randn(40, 34), 3, rows, number(5)),
        "topk_attention": (query, keys, values, index, 0.3, number(5)),
        "topk_attention_backward": (randn(9, 34), query, keys, values, index, 0.3, number(5)),
        "replace_and_score": tuple(batch(3, 4)[0]),
        "confidence_filter_padded": (query, keys, 0.8, torch.ones(9, dtype=torch.bool)),
    }


@pytest.mark.parametrize("name", calls())
def test_opcheck_and_one_graph(name: str) -> None:
    loader.ready()
    op, arguments = getattr(torch.ops.cfr_fast, name), list(calls()[name])
    differentiable = name in ("interpolate_tokens", "topk_attention")
    given = [arguments[0].clone().requires_grad_(differentiable), *arguments[1:]]
    torch.library.opcheck(op.default, tuple(given))
    compiled = torch.compile(lambda *items: op(*items), fullgraph=True, backend="aot_eager")
    got, expected = compiled(*arguments), op(*arguments)
    if isinstance(got, Tensor):
        got, expected = (got,), (expected,)
    assert all(map(torch.equal, got, expected))


@pytest.mark.parametrize("name", [name for name in calls() if name != "confidence_filter_padded"])
def test_counts_that_do_not_fit(name: str) -> None:
    if loader.load() is None:
        pytest.skip("no native library here")
    op, arguments = getattr(torch.ops.cfr_fast, name), calls()[name][:-1]
    for count, message in (
        (number(10**6), "count: expected 0 to the number of rows, got 1000000"),
        (number(-1), "count: expected 0 to the number of rows, got -1"),
        (torch.zeros(2, dtype=torch.int64), r"count: expected int64 \[1\], got shape \[2\]"),
        (torch.zeros(1), r"count: expected int64 \[1\]"),
    ):
        with pytest.raises(RuntimeError, match=f"{name}: {message}"):
            op(*arguments, count)


@pytest.mark.parametrize("row", [-1, 70])
def test_real_rows_out_of_range(row: int) -> None:
    if loader.load() is None:
        pytest.skip("no native library here")
    features, rows = pixels(70, 20, 34), torch.tensor([3, row, 5])
    for op, more in ((ops.interpolate_tokens, ()), (ops.topk_interpolated, (randn(40, 34), 2))):
        with pytest.raises(RuntimeError, match=f"rows: expected numbers of pixels, got {row}"):
            op(features, *more, rows, number(2))
        assert op(features, *more, rows, number(1)).shape[0] == 3


def test_bad_lists_name_the_argument() -> None:
    features = pixels(70, 20, 34)
    with pytest.raises(InputError, match=r"rows: expected int64 of shape \[·\], got float32"):
        features.dense(torch.zeros(3))
    with pytest.raises(InputError, match=r"count: expected int64 of shape \[1\], got int64 of shape \[2\]"):
        ops.geglu_map(features, *WEIGHTS, torch.zeros(2, dtype=torch.int64))
    arguments = batch(1, 4)[0]
    rgb, xyz = Interpolated(*arguments[1:5]), Interpolated(*arguments[6:10])
    scored = [arguments[0], rgb, arguments[5], xyz, *arguments[10:12]]
    with pytest.raises(InputError, match=r"valid: expected .* with at most \d+ True pixels"):
        ops.replace_and_score(*scored, torch.ones(1, 9, 90, dtype=torch.bool), arguments[13])
