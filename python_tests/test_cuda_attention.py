"""Both attentions' CUDA kernels: their sources run on the CPU, and on a card where there is one."""

from __future__ import annotations

from collections.abc import Callable

import emulated
import pytest
import torch
from tolerances import TOLERANCE
from torch import Tensor

from cfr_fast.ops import bank_attention, reference, topk_attention

Function = Callable[..., Tensor]
BANK, TOPK = TOLERANCE["bank_attention"], TOLERANCE["topk_attention"]


def on_cpu(name: str) -> Function:
    kernel, wanted = getattr(emulated.ops(), f"{name}_cuda"), {"bank_attention": 4, "topk_attention": 6}[name]
    return lambda *arguments: kernel(*arguments, *[None] * (wanted - len(arguments)), 0)


def on_card(name: str) -> Function:
    """The public op on a side stream, twice, with the same bits."""
    op = {"bank_attention": bank_attention, "topk_attention": topk_attention}[name]

    def run(*arguments: Tensor | float) -> Tensor:
        moved = [item.cuda() if isinstance(item, Tensor) else item for item in arguments]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            first, second = op(*moved), op(*moved)
        stream.synchronize()
        assert torch.equal(first.nan_to_num(7), second.nan_to_num(7))
        return first.cpu()

    return run


NO_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(params=["emulated", pytest.param("card", marks=NO_CARD)])
def place(request: pytest.FixtureRequest) -> Callable[[str], Function]:
    return on_cpu if request.param == "emulated" else on_card


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scene(n: int, m: int, d: int, dv: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    return randn(n, d, seed=seed), randn(m, d, seed=seed + 1), randn(m, dv, seed=seed + 2)


def lists(u: int, m: int, k: int) -> Tensor:
    return torch.randint(0, max(m, 1), (u, k), generator=torch.Generator().manual_seed(5))


def inside_nan(matrix: Tensor, before: int) -> Tensor:
    """The same numbers as a view into NaN, `before` columns from the start of its rows."""
    padded = torch.full((matrix.shape[0] + 2, matrix.shape[1] + before + 4), torch.nan)
    view = padded[1:-1, before : before + matrix.shape[1]]
    view.copy_(matrix)
    return view


@pytest.mark.parametrize(
    ("n", "m", "d", "dv"),
    [
        (1, 1, 1, 1),
        (0, 5, 33, 7),
        (5, 7, 33, 0),
        (5, 7, 0, 9),
        (127, 65, 33, 31),  # below, at and above tiles of 128 × 256, pieces of 32 columns
        (128, 256, 32, 32),
        (129, 257, 31, 33),
        (3, 130, 128, 257),
        (7, 70, 256, 1152),
        (2, 511, 40, 4),  # one part of the bank
        (2, 512, 40, 4),  # two
        (67, 1500, 36, 130),  # three, of unequal size
    ],
)
def test_bank_sizes(place: Callable[[str], Function], n: int, m: int, d: int, dv: int) -> None:
    query, keys, values = scene(n, m, d, dv)
    scale = max(d, 1) ** -0.5
    got = place("bank_attention")(query, keys, values, scale)
    expected = reference.bank_attention(query.double(), keys.double(), values.double(), scale)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, **BANK)


@pytest.mark.parametrize(
    ("u", "m", "d", "dv", "k"),
    [
        (1, 1, 1, 1, 1),
        (0, 5, 33, 7, 3),
        (5, 7, 33, 0, 2),
        (5, 7, 0, 9, 2),
        (3, 9, 4, 4, 31),  # below, at and above a warp's list, four queries, 128 columns
        (4, 9, 127, 129, 32),
        (5, 40, 129, 127, 33),
        (9, 40, 128, 768, 3),
        (6, 17, 256, 1152, 5),
        (7, 300, 65, 70, 200),
    ],
)
def test_topk_sizes(place: Callable[[str], Function], u: int, m: int, d: int, dv: int, k: int) -> None:
    query, keys, values = scene(u, m, d, dv)
    scale, index = max(d, 1) ** -0.5, lists(u, m, k)
    got = place("topk_attention")(query, keys, values, index, scale)
    expected = reference.topk_attention(query.double(), keys.double(), values.double(), index, scale)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, **TOPK)


@pytest.mark.parametrize("rows", [0, 7])
def test_no_rows_compose_zeros(place: Callable[[str], Function], rows: int) -> None:
    query, keys, values = scene(5, rows, 33, 9)
    got = place("topk_attention")(query, keys, values, lists(5, rows, 0), 0.4)
    assert torch.equal(got, torch.zeros(5, 9))


@pytest.mark.parametrize(("before", "d", "dv"), [(4, 36, 40), (1, 36, 40), (4, 35, 41)])
def test_nothing_outside_the_views(place: Callable[[str], Function], before: int, d: int, dv: int) -> None:
    """Strides, and rows that may or may not be read four columns at a time."""
    bank = scene(9, 600, d, dv)
    views = [inside_nan(matrix, before) for matrix in bank]
    index = lists(9, 600, 40)
    assert torch.equal(place("bank_attention")(*views, 0.3), place("bank_attention")(*bank, 0.3))
    columns = index.T.contiguous().T
    got = place("topk_attention")(*views, columns, 0.3)
    assert torch.equal(got, place("topk_attention")(*bank, index, 0.3))


def over_all_rows(place: Callable[[str], Function]) -> list[Function]:
    """bank_attention, and topk_attention over lists of the whole bank."""

    def listed(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        index = torch.arange(keys.shape[0]).expand(query.shape[0], -1)
        return place("topk_attention")(query, keys, values, index, scale)

    return [place("bank_attention"), listed]


def test_equal_logits_are_a_mean(place: Callable[[str], Function]) -> None:
    query, keys, values = torch.full((2, 3), 1e4), torch.full((600, 3), 1e4), randn(600, 5)
    for attend in over_all_rows(place):
        got = attend(query, keys, values, 1.0)
        torch.testing.assert_close(got, values.mean(0).expand(2, 5))
        one = torch.cat([keys[:577], 2 * keys[:1], keys[578:]])
        assert torch.equal(attend(query, one, values, 1.0), values[[577, 577]])


def test_all_logits_may_be_far_below_zero(place: Callable[[str], Function]) -> None:
    """So far that against a logit of 0, which stands for no key, they would all weigh nothing."""
    query, keys, values = torch.ones(2, 1), torch.tensor([[-1000.0], [-1001.0], [-1002.0]]), randn(3, 5)
    expected = reference.bank_attention(query.double(), keys.double(), values.double(), 1.0)
    for attend in over_all_rows(place):
        torch.testing.assert_close(attend(query, keys, values, 1.0).double(), expected, **BANK)


@pytest.mark.parametrize("order", [1, -1])
def test_the_largest_logit_may_come_anywhere(place: Callable[[str], Function], order: int) -> None:
    keys = order * torch.linspace(-300, 300, 700)[:, None]
    query, values = torch.tensor([[1.0], [-0.5], [0.0]]), randn(700, 20)
    expected = reference.bank_attention(query.double(), keys.double(), values.double(), 1.0)
    for attend in over_all_rows(place):
        got = attend(query, keys, values, 1.0).double()
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)  # logits of 300 are known to 3e-5


def test_infinitely_far_keys_weigh_nothing(place: Callable[[str], Function]) -> None:
    query, keys, values = torch.ones(3, 1), torch.full((600, 1), -torch.inf), randn(600, 4)
    keys[400:402] = 2.0
    expected = values[400:402].mean(0).expand(3, 4)
    for attend in over_all_rows(place):
        torch.testing.assert_close(attend(query, keys, values, 1.0), expected)
        assert attend(query, keys[:300], values[:300], 1.0).isnan().all()
        assert attend(query, keys[402:], values[402:], 1.0).isnan().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_what_is_no_number(place: Callable[[str], Function], where: int, value: float) -> None:
    bank = scene(20, 520, 20, 30)
    bank[where][17, 3] = value
    wanted = reference.bank_attention(*bank, 0.3)
    assert wanted.isnan().any() or wanted.isinf().any()
    got = place("bank_attention")(*bank, 0.3)
    assert torch.equal(got.isnan(), wanted.isnan())
    assert torch.equal(got.isinf(), wanted.isinf())
    index = lists(20, 520, 50)
    index[4, 8] = index[5, 40] = 17
    wanted = reference.topk_attention(*bank, index, 0.3)
    got = place("topk_attention")(*bank, index, 0.3)
    assert wanted.isnan().any() or wanted.isinf().any()
    assert not wanted.isnan().all()
    assert torch.equal(got.isnan(), wanted.isnan())
    assert torch.equal(got.isinf(), wanted.isinf())


def test_same_bits_twice(place: Callable[[str], Function]) -> None:
    bank, index = scene(40, 1100, 33, 40), lists(40, 1100, 70)
    assert torch.equal(place("bank_attention")(*bank, 0.2), place("bank_attention")(*bank, 0.2))
    first = place("topk_attention")(*bank, index, 0.2)
    assert torch.equal(place("topk_attention")(*bank, index, 0.2), first)


@NO_CARD
def test_gradients_on_a_card() -> None:
    """Through plain PyTorch, from what the kernels saved."""
    bank, index, grad = scene(40, 90, 33, 40), lists(40, 90, 5), randn(40, 40, seed=9)

    def gradients(attend: Function, *more: Tensor, device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = [tensor.to(device, dtype).requires_grad_() for tensor in bank]
        output = attend(*inputs, *(item.to(device) for item in more), 0.2)
        return torch.autograd.grad(output, inputs, grad.to(device, dtype))

    for attend, more in ((bank_attention, ()), (topk_attention, (index,))):
        ours = gradients(attend, *more, device="cuda", dtype=torch.float32)
        exact = gradients(attend, *more, device="cpu", dtype=torch.float64)
        for got, wanted in zip(ours, exact, strict=True):
            close = TOLERANCE[f"{attend.__name__}.gradient"]
            torch.testing.assert_close(got.cpu().double(), wanted, **close)


def test_an_empty_bank_is_refused() -> None:
    with pytest.raises(RuntimeError, match="bank_attention: keys: expected at least one row"):
        on_cpu("bank_attention")(*scene(2, 0, 3, 4), 1.0)


def test_lists_need_a_row_for_every_query() -> None:
    bank = scene(2, 3, 4, 5)
    with pytest.raises(RuntimeError, match="topk_attention: index: expected a row for every query"):
        on_cpu("topk_attention")(*bank, lists(3, 3, 1), 1.0)
