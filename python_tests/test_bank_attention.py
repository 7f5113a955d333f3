from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCE
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import bank_attention, loader, reference

CLOSE = TOLERANCE["bank_attention"]
CLOSE_GRADIENT = TOLERANCE["bank_attention.gradient"]
Bank = tuple[Tensor, Tensor, Tensor]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scene(n: int, m: int, d: int, dv: int, seed: int = 0) -> Bank:
    return randn(n, d, seed=seed), randn(m, d, seed=seed + 1), randn(m, dv, seed=seed + 2)


def double(bank: Bank) -> Bank:
    query, keys, values = (tensor.double() for tensor in bank)
    return query, keys, values


def gradients(bank: Bank, scale: float) -> tuple[Tensor, ...]:
    """Gradients of a weighted sum of the result with respect to query, keys and values."""
    inputs = [tensor.detach().requires_grad_() for tensor in bank]
    output = bank_attention(*inputs, scale)
    return torch.autograd.grad(output, inputs, randn(*output.shape, seed=9).to(output.dtype))


def assert_right(bank: Bank) -> None:
    scale = max(bank[0].shape[1], 1) ** -0.5
    got = bank_attention(*bank, scale)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), reference.bank_attention(*double(bank), scale), **CLOSE)


@pytest.mark.parametrize(
    ("n", "m", "d", "dv"),
    [
        (1, 1, 1, 1),
        (0, 5, 33, 7),
        (5, 7, 33, 0),
        (5, 7, 0, 9),
        (95, 191, 33, 33),  # below, at and above the tiles of 96 queries and 192 keys
        (96, 192, 384, 128),
        (97, 193, 385, 129),
        (7, 17, 1152, 1152),
        (2, 2001, 128, 768),
        (193, 385, 40, 5),
    ],
)
def test_sizes(kernels: str, n: int, m: int, d: int, dv: int) -> None:
    assert_right(scene(n, m, d, dv))


@pytest.mark.parametrize("n", [1, 7, 8, 9, 15, 16, 17])
@pytest.mark.parametrize("m", range(1, 8))
def test_panel_edges(kernels: str, n: int, m: int) -> None:
    for dv in range(1, 8):
        assert_right(scene(n, m, 35, dv))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 150),
    m=st.integers(1, 450),
    d=st.integers(1, 200),
    dv=st.integers(1, 200),
    seed=st.integers(0, 2**31),
)
def test_any_size(n: int, m: int, d: int, dv: int, seed: int) -> None:
    assert_right(scene(n, m, d, dv, seed))


def test_exponentials_keep_their_digits(kernels: str) -> None:
    """Two keys with logits 0 and x: what the second one's value 1 becomes is eˣ / (1 + eˣ)."""
    x = torch.cat([torch.linspace(-86.5, 0, 40_001), -torch.logspace(-30, 0, 500)])
    got = bank_attention(x[:, None], torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]]), 1.0)[:, 0]
    exact = torch.sigmoid(x.double())
    torch.testing.assert_close(got.double(), exact, **TOLERANCE["bank_attention.exponential"])
    far = torch.tensor([[-87.0], [-104.0], [-1e30]])
    keys, values = torch.tensor([[1.0], [1e-38]]), torch.tensor([[1.0], [0.0]])
    assert torch.equal(bank_attention(far, keys, values, 1.0), torch.zeros(3, 1))


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_the_largest_logit_may_come_anywhere(kernels: str, order: str) -> None:
    """Logits far apart, so that a tile makes all before it vanish, or vanishes itself."""
    keys = torch.linspace(-300, 300, 1000)[:, None]
    query, values = torch.tensor([[1.0], [-0.5], [0.0]]), randn(1000, 20)
    if order == "descending":
        keys = keys.flip(0)
    got = bank_attention(query, keys, values, 1.0).double()
    expected = reference.bank_attention(query.double(), keys.double(), values.double(), 1.0)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)  # logits of 300 are known to 3e-5


def test_large_logits_stay_finite(kernels: str) -> None:
    query, keys, values = torch.full((2, 3), 1e4), torch.full((400, 3), 1e4), randn(400, 5)
    torch.testing.assert_close(bank_attention(query, keys, values, 1.0), values.mean(0).expand(2, 5))
    keys[77] *= 2
    assert torch.equal(bank_attention(query, keys, values, 1.0), values[[77, 77]])


def test_infinitely_far_keys_weigh_nothing(kernels: str) -> None:
    query, keys, values = torch.ones(3, 1), torch.full((500, 1), -torch.inf), randn(500, 4)
    keys[300:302] = 2.0
    expected = values[300:302].mean(0).expand(3, 4)
    torch.testing.assert_close(bank_attention(query, keys, values, 1.0), expected)
    assert bank_attention(query, keys[:300], values[:300], 1.0).isnan().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_what_is_no_number(kernels: str, where: int, value: float) -> None:
    bank = scene(40, 300, 20, 30)
    bank[where][17, 3] = value
    got, expected = bank_attention(*bank, 0.3), reference.bank_attention(*bank, 0.3)
    assert expected.isnan().any() or expected.isinf().any()
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got.isinf(), expected.isinf())


def test_strides_and_nothing_outside_the_views(kernels: str) -> None:
    query, keys, values = scene(37, 200, 35, 41)
    expected = bank_attention(query, keys, values, 0.3)

    def inside_nan(matrix: Tensor) -> Tensor:
        padded = torch.full((matrix.shape[0] + 16, matrix.shape[1] + 16), torch.nan)
        view = padded[8:-8, 8:-8]
        view.copy_(matrix)
        return view

    for views in (
        (inside_nan(query), inside_nan(keys), inside_nan(values)),
        (query.T.contiguous().T, keys.repeat_interleave(2, dim=0)[::2], values.T.contiguous().T),
    ):
        assert torch.equal(bank_attention(*views, 0.3), expected)


def test_same_bits_whatever_the_run_the_threads_and_the_tiling(kernels: str) -> None:
    query, keys, values = scene(205, 500, 40, 50)
    first = bank_attention(query, keys, values, 0.2)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(bank_attention(query, keys, values, 0.2), first)
    finally:
        torch.set_num_threads(threads)
    parts = [bank_attention(part, keys, values, 0.2) for part in query.split(41)]
    assert torch.equal(torch.cat(parts), first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_go_through_the_reference(dtype: torch.dtype) -> None:
    query, keys, values = (tensor.to(dtype) for tensor in scene(9, 30, 40, 12))
    expected = reference.bank_attention(query, keys, values, 0.3)
    assert torch.equal(bank_attention(query, keys, values, 0.3), expected)


def test_against_scaled_dot_product_attention() -> None:
    bank = double(scene(13, 9, 6, 4))
    wanted = torch.nn.functional.scaled_dot_product_attention(*bank, scale=0.4)
    torch.testing.assert_close(bank_attention(*bank, 0.4), wanted)


@pytest.mark.parametrize(
    ("n", "m", "d", "dv"), [(1, 1, 1, 1), (0, 5, 33, 7), (5, 7, 0, 9), (97, 193, 128, 33), (300, 50, 33, 768)]
)
def test_gradient(n: int, m: int, d: int, dv: int) -> None:
    bank, scale = scene(n, m, d, dv), max(d, 1) ** -0.5
    first = gradients(bank, scale)
    assert all(map(torch.equal, gradients(bank, scale), first))
    for ours, exact in zip(first, gradients(double(bank), scale), strict=True):
        torch.testing.assert_close(ours.double(), exact, **CLOSE_GRADIENT)


def test_gradient_in_float64() -> None:
    inputs = [tensor.requires_grad_() for tensor in double(scene(4, 5, 3, 2))]
    assert torch.autograd.gradcheck(lambda q, k, v: bank_attention(q, k, v, 0.7), inputs)


def test_blocks_agree_with_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = double(scene(37, 11, 6, 5))
    output, grad = reference.bank_attention(*bank, 0.4), randn(37, 5, seed=9).double()
    whole = reference.bank_attention_backward(grad, *bank, output, 0.4)
    monkeypatch.setattr("cfr_fast.ops.reference.BLOCK", 300)
    torch.testing.assert_close(reference.bank_attention(*bank, 0.4), output)
    for part, expected in zip(
        reference.bank_attention_backward(grad, *bank, output, 0.4), whole, strict=True
    ):
        torch.testing.assert_close(part, expected)


def test_opcheck() -> None:
    loader.ready()
    inputs = tuple(tensor.requires_grad_() for tensor in scene(6, 9, 40, 33))
    torch.library.opcheck(torch.ops.cfr_fast.bank_attention.default, (*inputs, 0.3))


def test_compiles_to_one_graph() -> None:
    inputs = [tensor.requires_grad_() for tensor in scene(6, 9, 40, 33)]

    def loss(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return bank_attention(query, keys, values, 0.3).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(loss(*inputs), inputs)
    got = torch.autograd.grad(compiled(*inputs), inputs)
    assert all(map(torch.equal, got, expected))


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("query", {0: torch.zeros(2)}),
        ("keys", {1: torch.zeros(4, 5)}),
        ("keys", {1: torch.zeros(4, 3, dtype=torch.float64)}),
        ("keys", {1: torch.zeros(0, 3), 2: torch.zeros(0, 7)}),
        ("values", {2: torch.zeros(5, 7)}),
        ("values", {2: torch.zeros(4, 7, dtype=torch.float16)}),
    ],
)
def test_bad_input_names_the_argument(argument: str, change: dict[int, Tensor]) -> None:
    good = (torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(4, 7))
    arguments = [change.get(i, tensor) for i, tensor in enumerate(good)]
    with pytest.raises(InputError, match=f"^{argument}: expected"):
        bank_attention(*arguments, 1.0)
    if loader.load() is not None:
        with pytest.raises(RuntimeError, match=f"bank_attention: {argument}: expected"):
            torch.ops.cfr_fast.bank_attention(*arguments, 1.0)
