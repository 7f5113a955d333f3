"""Ops that work on tokens and interpolate the result: the same answers as on dense pixels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCE
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import Interpolated, geglu_map, interpolate_tokens, loader, reference, topk_interpolated


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pixels(tokens: int, count: int, dim: int, most: int = 9) -> Interpolated:
    """`count` pixels of 0 to `most` tokens each."""
    draw = torch.Generator().manual_seed(count)
    entries = torch.randint(0, most + 1 if tokens else 1, (count,), generator=draw)
    offset = torch.cat([torch.zeros(1, dtype=torch.int64), entries.cumsum(0)])
    source = torch.randint(0, max(1, tokens), (int(offset[-1]),), generator=draw)
    return Interpolated(randn(tokens, dim), offset, source, torch.rand(len(source), generator=draw))


def mapper(hidden: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """b12, W3 and b3."""
    scale = max(1, hidden) ** -0.5
    return randn(2 * hidden, seed=1), randn(outputs, hidden, seed=2) * scale, randn(outputs, seed=3)


def double(items: tuple[Tensor, ...]) -> list[Tensor]:
    return [item.double() if item.is_floating_point() else item for item in items]


SIZES = [
    (0, 0, 4),
    (3, 0, 5),
    (0, 4, 5),
    (1, 1, 1),
    (5, 1, 33),
    (7, 47, 8),
    (97, 48, 64),
    (96, 49, 66),
    (30, 95, 384),
]


@pytest.mark.parametrize(("tokens", "count", "dim"), [*SIZES, (784, 300, 1152), (40, 129, 0)])
def test_interpolate_tokens(kernels: str, tokens: int, count: int, dim: int) -> None:
    features = pixels(tokens, count, dim)
    got = interpolate_tokens(features)
    expected = reference.interpolate_tokens(*double(features))
    torch.testing.assert_close(got.double(), expected, **TOLERANCE["interpolate_tokens"])


@pytest.mark.parametrize(("tokens", "count", "dim"), [*SIZES, (784, 300, 1920), (60, 97, 2 * 385)])
@pytest.mark.parametrize("outputs", [0, 1, 17, 385])
def test_geglu_map(kernels: str, tokens: int, count: int, dim: int, outputs: int) -> None:
    hidden = dim // 2
    features, weights = pixels(tokens, count, 2 * hidden), mapper(hidden, outputs)
    got = geglu_map(features, *weights)
    expected = reference.geglu_map(*double(features), *double(weights))
    torch.testing.assert_close(got.double(), expected, **TOLERANCE["geglu_map"])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(0, 120), st.integers(1, 40), st.integers(0, 40))
def test_geglu_map_of_any_size(tokens: int, count: int, hidden: int, outputs: int) -> None:
    features, weights = pixels(tokens, count, 2 * hidden), mapper(hidden, outputs)
    expected = reference.geglu_map(*double(features), *double(weights))
    torch.testing.assert_close(geglu_map(features, *weights).double(), expected, **TOLERANCE["geglu_map"])


def test_gelu_over_its_whole_range(kernels: str) -> None:
    """One hidden unit whose value is one and whose output is its gate's GELU."""
    gate = torch.cat(
        [torch.linspace(-40, 40, 4001), torch.tensor([0.0, -0.0, 1e-30, -1e-30, 3e5, torch.nan])]
    )
    features = Interpolated.of(torch.stack([gate, torch.ones_like(gate)], dim=1))
    got = geglu_map(features, torch.zeros(2), torch.ones(1, 1), torch.zeros(1))[:, 0]
    expected = torch.nn.functional.gelu(gate.double())
    torch.testing.assert_close(got.double(), expected, rtol=3e-7, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize(
    ("tokens", "count", "dim", "keys", "k"),
    [
        (5, 0, 3, 4, 2), (5, 3, 3, 4, 0), (1, 1, 1, 1, 1), (96, 63, 33, 383, 3), (97, 65, 400, 385, 32),
        (20, 64, 8, 1537, 3), (7, 200, 1152, 40, 40),
    ],
)  # fmt: skip
def test_topk_interpolated(kernels: str, tokens: int, count: int, dim: int, keys: int, k: int) -> None:
    query, bank = pixels(tokens, count, dim), randn(keys, dim, seed=5)
    got = topk_interpolated(query, bank, k)
    assert torch.equal(got, reference.topk_interpolated(*double((*query, bank)), k))


def test_topk_interpolated_prefers_the_lower_of_equal_keys(kernels: str) -> None:
    query, bank = pixels(40, 70, 50), randn(9, 50, seed=6).repeat(60, 1)
    got = topk_interpolated(query, bank, 12)
    best = topk_interpolated(query, bank[:9], 1)
    some = query.offset.diff() > 0
    assert torch.equal(got[some], (best + 9 * torch.arange(12))[some])


def test_nan_keys_come_first_and_zero_pixels_take_the_lowest_rows(kernels: str) -> None:
    query, bank = pixels(40, 70, 50), randn(90, 50, seed=6)
    bank[17, 3] = torch.nan
    empty = query.offset.diff() == 0
    assert empty.any()
    assert (topk_interpolated(query, bank, 2)[~empty, 0] == 17).all()
    assert (topk_interpolated(query, randn(90, 50, seed=6), 2)[empty] == torch.arange(2)).all()


WEIGHTS, KEYS = mapper(17, 30), randn(50, 34, seed=4)
CASES: dict[str, Callable[[Interpolated], Tensor]] = {
    "interpolate_tokens": interpolate_tokens,
    "geglu_map": lambda features: geglu_map(features, *WEIGHTS),
    "topk_interpolated": lambda features: topk_interpolated(features, KEYS, 3),
}


@pytest.mark.parametrize("name", CASES)
def test_same_bits_whatever_the_run_the_threads_and_the_strides(kernels: str, name: str) -> None:
    features = pixels(60, 200, 34)
    first = CASES[name](features)
    strided = features._replace(
        tokens=torch.full((66, 40), torch.nan)[3:63, 2:36].copy_(features.tokens),
        source=features.source.repeat_interleave(2)[::2],
        weight=features.weight.repeat_interleave(2)[::2],
    )
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(CASES[name](features), first)
            assert torch.equal(CASES[name](strided), first)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CASES)
def test_other_dtypes_go_through_the_reference(name: str) -> None:
    features = pixels(20, 30, 34)
    wide = features._replace(tokens=features.tokens.double(), weight=features.weight.double())
    if name == "interpolate_tokens":
        assert torch.equal(interpolate_tokens(wide), reference.interpolate_tokens(*wide))
    elif name == "geglu_map":
        weights = double(mapper(17, 30))
        assert torch.equal(geglu_map(wide, *weights), reference.geglu_map(*wide, *weights))
    else:
        keys = randn(50, 34).double()
        assert torch.equal(topk_interpolated(wide, keys, 3), reference.topk_interpolated(*wide, keys, 3))


def test_gradient_of_interpolation() -> None:
    features = pixels(12, 30, 5)
    tokens = features.tokens.clone().requires_grad_()
    towards = randn(30, 5, seed=7)
    (interpolate_tokens(features._replace(tokens=tokens)) * towards).sum().backward()
    wide = features.tokens.double().requires_grad_()
    dense = reference.interpolate_tokens(wide, features.offset, features.source, features.weight.double())
    (dense * towards).sum().backward()
    torch.testing.assert_close(tokens.grad.double(), wide.grad, **TOLERANCE["interpolate_tokens"])


def test_opcheck() -> None:
    loader.ready()
    features = pixels(20, 30, 34)
    ops = torch.ops.cfr_fast
    tokens = features.tokens.clone().requires_grad_()
    torch.library.opcheck(ops.interpolate_tokens.default, tuple(features._replace(tokens=tokens)))
    torch.library.opcheck(ops.geglu_map.default, (*features, *mapper(17, 30)))
    torch.library.opcheck(ops.topk_interpolated.default, (*features, randn(50, 34), 3))


@pytest.mark.parametrize("name", CASES)
def test_compiles_to_one_graph(name: str) -> None:
    features = pixels(20, 30, 34)
    compiled = torch.compile(
        lambda *parts: CASES[name](Interpolated(*parts)) * 2, fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(*features), CASES[name](features) * 2)


GOOD = Interpolated(torch.zeros(3, 4), torch.tensor([0, 1, 2]), torch.tensor([0, 2]), torch.ones(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": torch.zeros(3)}, r"features.tokens: expected a floating-point matrix \[N, D\]"),
        ({"offset": torch.zeros(3)}, "features.offset: expected an int64 vector, got float32"),
        (
            {"offset": torch.zeros(0, dtype=torch.int64)},
            "features.offset: expected one element more than pixels",
        ),
        ({"source": torch.zeros(2, 2, dtype=torch.int64)}, "features.source: expected an int64 vector"),
        ({"weight": torch.ones(3)}, r"features.weight: expected shape \[2\]"),
        ({"weight": torch.ones(2).double()}, "features.weight: expected dtype float32, got float64"),
    ],
)
def test_malformed_entries(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        interpolate_tokens(GOOD._replace(**change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": torch.tensor([0, 3])}, "source: expected rows of tokens, got 3"),
        ({"source": torch.tensor([-1, 0])}, "source: expected rows of tokens, got -1"),
        ({"offset": torch.tensor([1, 1, 2])}, "offset: expected ascending numbers from 0, got 1"),
        ({"offset": torch.tensor([0, 2, 1])}, "offset: expected ascending numbers from 0, got 1"),
        (
            {"offset": torch.tensor([0, 1, 3])},
            "offset: expected at most the number of entries as its last, got 3",
        ),
    ],
)
def test_entries_that_point_nowhere(change: dict[str, Tensor], message: str) -> None:
    if loader.load() is None:
        pytest.skip("no native library here")
    with pytest.raises(RuntimeError, match=message):
        interpolate_tokens(GOOD._replace(**change))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda f: geglu_map(f, torch.zeros(4), torch.zeros(2, 3), torch.zeros(2)),
            "projected.tokens: expected .* 6",
        ),
        (
            lambda f: geglu_map(f, torch.zeros(3), torch.zeros(2, 2), torch.zeros(2)),
            r"bias: expected shape \[4\]",
        ),
        (
            lambda f: geglu_map(f, torch.zeros(4), torch.zeros(2, 2), torch.zeros(3)),
            r"out_bias: expected shape \[2\]",
        ),
        (lambda f: topk_interpolated(f, torch.zeros(5, 3), 1), "keys: expected .* 4"),
        (
            lambda f: topk_interpolated(f, torch.zeros(5, 4), 6),
            "k: expected a number of keys between 0 and 5",
        ),
    ],
)
def test_arguments_that_do_not_fit(call: Callable[[Interpolated], Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(GOOD)
