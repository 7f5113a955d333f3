"""topk_cosine and confidence_filter on CUDA: their sources run on the CPU, and on a device where there is one."""

from __future__ import annotations

import emulated
import pytest
import torch
from tolerances import TOLERANCE
from torch import Tensor

from cfr_fast.ops import reference

CLOSE = TOLERANCE["topk_cosine"]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_topk(query: Tensor, keys: Tensor, k: int) -> None:
    similarity, index = emulated.ops().topk_cosine_cuda(query, keys, k, 0)
    wanted, rows = reference.topk_cosine(query.double(), keys.double(), k)
    torch.testing.assert_close(similarity.double(), wanted, **CLOSE)
    unit = torch.nn.functional.normalize
    gathered = (unit(query.double(), dim=1)[:, None] * unit(keys.double(), dim=1)[index]).sum(dim=2)
    torch.testing.assert_close(gathered, wanted, **CLOSE)
    assert all(len(row.unique()) == k for row in index)
    again = emulated.ops().topk_cosine_cuda(query, keys, k, 0)
    assert torch.equal(similarity, again[0])
    assert torch.equal(index, again[1])


@pytest.mark.parametrize(
    ("n", "m", "d", "k"),
    [(1, 1, 1, 1), (3, 255, 33, 3), (2, 256, 64, 32), (5, 257, 65, 3), (1, 300, 1152, 1), (129, 40, 17, 5)],
)
def test_topk_sizes(n: int, m: int, d: int, k: int) -> None:
    assert_topk(randn(n, d), randn(m, d, seed=1), k)
