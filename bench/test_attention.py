from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import Race
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from cfr_fast.ops import bank_attention, loader, reference, topk_attention

M, D, SCALE = 5017, 128, 128**-0.5
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_gradients(attend: Attention, query: Tensor, keys: Tensor, values: Tensor) -> Callable[[], object]:
    """One step of training: the result and the gradients of all three."""
    inputs = [tensor.clone().requires_grad_() for tensor in (query, keys, values)]
    grad = randn(query.shape[0], values.shape[1], seed=3)
    return lambda: torch.autograd.grad(attend(*inputs), inputs, grad)


@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "forward_backward"])
@pytest.mark.parametrize("dv", [128, 768])
def test_topk_attention(race: Race, dv: int, gradients: bool) -> None:
    """The peer gathers rows by `embedding`, whose gradient adds in a fixed order."""
    u, k = 20_000, 3
    query, keys, values = randn(u, D), randn(M, D, seed=1), randn(M, dv, seed=2)
    index = torch.randint(0, M, (u, k), generator=torch.Generator().manual_seed(4))
    assert loader.load() is not None

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return topk_attention(q, k, v, index, SCALE)

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return reference.topk_attention(q, k, v, index, SCALE)

    bank = (query, keys, values)
    if gradients:
        work = 2.0 * u * k * (4 * D + 3 * dv)
        race(work, with_gradients(ours, *bank), torch_embedding=with_gradients(plain, *bank))
    else:
        race(2.0 * u * k * (D + dv), lambda: ours(*bank), torch_embedding=lambda: plain(*bank))


@pytest.mark.parametrize("gradients", [False, True], ids=["forward", "forward_backward"])
@pytest.mark.parametrize("dv", [128, 768])
def test_bank_attention(race: Race, dv: int, gradients: bool) -> None:
    n = 5000
    bank = (randn(n, D), randn(M, D, seed=1), randn(M, dv, seed=2))
    assert loader.load() is not None

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return bank_attention(q, k, v, SCALE)

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return reference.bank_attention(q, k, v, SCALE)

    def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = (tensor[None, None] for tensor in (q, k, v))  # torch's fused CPU kernel wants four axes
        return scaled_dot_product_attention(*heads, scale=SCALE)[0, 0]

    if gradients:
        race(
            2.0 * n * M * (4 * D + 3 * dv),
            with_gradients(ours, *bank),
            torch_mm_softmax=with_gradients(plain, *bank),
            torch_sdpa=with_gradients(fused, *bank),
        )
    else:
        race(
            2.0 * n * M * (D + dv),
            lambda: ours(*bank),
            torch_mm_softmax=lambda: plain(*bank),
            torch_sdpa=lambda: fused(*bank),
        )
