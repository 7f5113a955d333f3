from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCE
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import bank_attention, loader, reference, topk_attention

CLOSE = TOLERANCE["topk_attention"]
CLOSE_GRADIENT = TOLERANCE["topk_attention.gradient"]
Bank = tuple[Tensor, Tensor, Tensor, Tensor]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scene(u: int, m: int, d: int, dv: int, k: int, seed: int = 0) -> Bank:
    """Queries, keys, values and the rows to attend over, some of them twice."""
    rows = torch.randint(0, max(m, 1), (u, k), generator=torch.Generator().manual_seed(seed))
    return randn(u, d, seed=seed + 1), randn(m, d, seed=seed + 2), randn(m, dv, seed=seed + 3), rows


def gradients(bank: Bank, scale: float, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Gradients of a weighted sum of the result with respect to query, keys and values."""
    inputs = [tensor.detach().to(dtype).requires_grad_() for tensor in bank[:3]]
    output = topk_attention(*inputs, bank[3], scale)
    return torch.autograd.grad(output, inputs, randn(*output.shape, seed=9).to(dtype))


def assert_right(bank: Bank) -> None:
    """Result and gradients against those of the reference in float64."""
    query, keys, values, index = bank
    scale = max(query.shape[1], 1) ** -0.5
    got = topk_attention(query, keys, values, index, scale)
    expected = reference.topk_attention(query.double(), keys.double(), values.double(), index, scale)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, **CLOSE)
    for ours, exact in zip(gradients(bank, scale), gradients(bank, scale, torch.float64), strict=True):
        torch.testing.assert_close(ours.double(), exact, **CLOSE_GRADIENT)


@pytest.mark.parametrize(
    ("u", "m", "d", "dv", "k"),
    [
        (1, 1, 1, 1, 1),
        (0, 5, 33, 7, 3),
        (5, 0, 33, 7, 0),
        (5, 7, 33, 0, 2),
        (5, 7, 0, 9, 2),
        (63, 65, 33, 31, 3),  # below, at and above chunks of 64 rows and blocks of 32 columns
        (64, 64, 16, 32, 2),
        (65, 63, 17, 33, 5),
        (7, 17, 1152, 1152, 17),
        (300, 5, 128, 768, 3),
        (40, 3000, 128, 128, 300),
    ],
)
def test_sizes(kernels: str, u: int, m: int, d: int, dv: int, k: int) -> None:
    assert_right(scene(u, m, d, dv, k))


@settings(max_examples=25, deadline=None)
@given(
    u=st.integers(0, 150),
    m=st.integers(1, 200),
    d=st.integers(1, 200),
    dv=st.integers(1, 200),
    k=st.integers(0, 9),
    seed=st.integers(0, 2**31),
)
def test_any_size(u: int, m: int, d: int, dv: int, k: int, seed: int) -> None:
    assert_right(scene(u, m, d, dv, k, seed))


def test_no_rows_compose_zeros(kernels: str) -> None:
    bank = scene(5, 7, 33, 9, 0)
    for attend in (topk_attention, reference.topk_attention):
        assert torch.equal(attend(*bank, 0.4), torch.zeros(5, 9))
    assert all(torch.equal(grad, torch.zeros_like(grad)) for grad in gradients(bank, 0.4))


def test_all_queries_on_one_row(kernels: str) -> None:
    query, keys, values, _ = scene(2000, 9, 40, 40, 1)
    index = torch.full((2000, 3), 4)
    torch.testing.assert_close(topk_attention(query, keys, values, index, 0.2), values[4].expand(2000, 40))
    grad_query, grad_keys, grad_values = gradients((query, keys, values, index), 0.2)
    assert grad_query.abs().max() < 1e-5  # equal rows: the softmax does not move
    assert (grad_values[[0, 1, 2, 3, 5, 6, 7, 8]] == 0).all()
    assert (grad_keys[[0, 1, 2, 3, 5, 6, 7, 8]] == 0).all()
    expected = gradients((query, keys, values, index), 0.2, torch.float64)[2]
    torch.testing.assert_close(grad_values.double(), expected, rtol=1e-5, atol=3e-5)  # 6,000 terms a sum


def test_large_logits_stay_finite(kernels: str) -> None:
    query, keys = torch.full((2, 33), 1e4), torch.full((4, 33), 1e4)
    values, index = randn(4, 33), torch.tensor([[0, 1, 2, 3], [1, 1, 3, 3]])
    expected = torch.stack([values.mean(0), values[[1, 3]].mean(0)])
    torch.testing.assert_close(topk_attention(query, keys, values, index, 1.0), expected)
    keys[3] *= 2
    assert torch.equal(topk_attention(query, keys, values, index, 1.0), values[[3, 3]])


def test_nan_stays_with_those_that_look_at_it(kernels: str) -> None:
    query, keys, values, index = scene(60, 20, 40, 35, 3)
    query[5, 39], keys[7, 0], values[9, 34] = torch.nan, torch.nan, torch.nan
    got = topk_attention(query, keys, values, index, 0.3)
    expected = reference.topk_attention(query, keys, values, index, 0.3)
    assert 0 < int(expected.isnan().any(dim=1).sum()) < 60
    assert torch.equal(got.isnan(), expected.isnan())
    bank = (query, keys, values, index)
    for ours, exact in zip(gradients(bank, 0.3), gradients(bank, 0.3, torch.float64), strict=True):
        assert torch.equal(ours.isnan(), exact.isnan())


def test_strides_and_nothing_outside_the_views(kernels: str) -> None:
    query, keys, values, index = scene(37, 20, 35, 41, 3)
    expected, slopes = (
        topk_attention(query, keys, values, index, 0.3),
        gradients((query, keys, values, index), 0.3),
    )

    def inside_nan(matrix: Tensor) -> Tensor:
        padded = torch.full((matrix.shape[0] + 16, matrix.shape[1] + 16), torch.nan)
        view = padded[8:-8, 8:-8]
        view.copy_(matrix)
        return view

    columns = index.T.contiguous().T
    for views in (
        (inside_nan(query), inside_nan(keys), inside_nan(values), columns),
        (query.T.contiguous().T, keys.repeat_interleave(2, dim=0)[::2], values.T.contiguous().T, index),
    ):
        assert torch.equal(topk_attention(*views, 0.3), expected)
    inputs = [query.requires_grad_(), keys.requires_grad_(), values.requires_grad_()]
    output = topk_attention(*inputs, index, 0.3)
    strided = torch.autograd.grad(output, inputs, randn(*output.shape, seed=9).T.contiguous().T)
    assert all(map(torch.equal, strided, slopes))


def test_same_bits_whatever_the_run_and_the_threads(kernels: str) -> None:
    bank = scene(1000, 150, 65, 70, 4)
    first, slopes = topk_attention(*bank, 0.2), gradients(bank, 0.2)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(topk_attention(*bank, 0.2), first)
            assert all(map(torch.equal, gradients(bank, 0.2), slopes))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_go_through_the_reference(dtype: torch.dtype) -> None:
    *features, index = scene(9, 30, 40, 12, 3)
    matrices = [tensor.to(dtype) for tensor in features]
    assert torch.equal(topk_attention(*matrices, index, 0.3), reference.topk_attention(*matrices, index, 0.3))


def test_gradient_in_float64() -> None:
    query, keys, values, index = scene(4, 5, 3, 2, 2)
    inputs = [tensor.double().requires_grad_() for tensor in (query, keys, values)]
    assert torch.autograd.gradcheck(lambda q, k, v: topk_attention(q, k, v, index, 0.7), inputs)


def test_the_plain_gradient_is_that_of_autograd() -> None:
    query, keys, values, index = scene(40, 13, 6, 5, 3)
    inputs = [tensor.double().requires_grad_() for tensor in (query, keys, values)]
    grad = randn(40, 5, seed=9).double()
    expected = torch.autograd.grad(reference.topk_attention(*inputs, index, 0.4), inputs, grad)
    got = reference.topk_attention_backward(grad, *inputs, index, 0.4)
    for ours, exact in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, exact)


def test_a_second_derivative_is_refused() -> None:
    query, keys, values, index = scene(4, 5, 3, 2, 2)
    query.requires_grad_()
    (grad,) = torch.autograd.grad(
        topk_attention(query, keys, values, index, 0.5).sum(), query, create_graph=True
    )
    with pytest.raises(RuntimeError, match="topk_attention: float32 has no second derivative; use float64"):
        grad.sum().backward()


def test_all_rows_are_the_whole_bank() -> None:
    query, keys, values, _ = scene(13, 90, 60, 40, 1)
    index = torch.arange(90).expand(13, 90)
    torch.testing.assert_close(
        topk_attention(query, keys, values, index, 0.4), bank_attention(query, keys, values, 0.4), **CLOSE
    )


def test_opcheck() -> None:
    loader.ready()
    query, keys, values, index = scene(6, 9, 40, 33, 3)
    inputs = tuple(tensor.requires_grad_() for tensor in (query, keys, values))
    torch.library.opcheck(torch.ops.cfr_fast.topk_attention.default, (*inputs, index, 0.3))
    plain = tuple(tensor.detach() for tensor in inputs)
    torch.library.opcheck(
        torch.ops.cfr_fast.topk_attention_backward.default, (randn(6, 33), *plain, index, 0.3)
    )


def test_compiles_to_one_graph() -> None:
    query, keys, values, index = scene(6, 9, 40, 33, 3)
    inputs = [tensor.requires_grad_() for tensor in (query, keys, values)]

    def loss(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return topk_attention(query, keys, values, index, 0.3).square().sum()

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
        ("values", {2: torch.zeros(5, 7)}),
        ("values", {2: torch.zeros(4, 7, dtype=torch.float16)}),
        ("index", {3: torch.zeros(3, 1, dtype=torch.int64)}),
        ("index", {3: torch.zeros(2, 1, dtype=torch.int32)}),
    ],
)
def test_bad_input_names_the_argument(argument: str, change: dict[int, Tensor]) -> None:
    good = (torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(4, 7), torch.zeros(2, 1, dtype=torch.int64))
    arguments = [change.get(i, tensor) for i, tensor in enumerate(good)]
    with pytest.raises(InputError, match=f"^{argument}: expected"):
        topk_attention(*arguments, 1.0)
    if loader.load() is not None:
        with pytest.raises(RuntimeError, match=f"topk_attention: {argument}: expected"):
            torch.ops.cfr_fast.topk_attention(*arguments, 1.0)


@pytest.mark.parametrize("row", [-1, 4])
def test_rows_outside_the_bank(kernels: str, row: int) -> None:
    bank = (torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(4, 7), torch.tensor([[0, 1], [2, row]]))
    message = f"index: expected rows of keys, got {row}"
    with pytest.raises(RuntimeError, match=f"topk_attention: {message}"):
        topk_attention(*bank, 1.0)
    with pytest.raises(RuntimeError, match=f"topk_attention_backward: {message}"):
        torch.ops.cfr_fast.topk_attention_backward(torch.zeros(2, 7), *bank, 1.0)
