from __future__ import annotations

import faiss
import pytest
import torch
from conftest import Race
from torch.nn.functional import normalize

from cfr_fast.ops import loader, topk_cosine


@pytest.mark.parametrize(
    ("n", "m", "d", "k"),
    [(8192, 5017, 768, 3), (4096, 20070, 768, 3), (50176, 5017, 768, 1)],
    ids=lambda value: str(value),
)
def test_topk_cosine(race: Race, threads: int, n: int, m: int, d: int, k: int) -> None:
    """The bare product is the least that an exact search has to do; it leaves [N, M] behind, unsearched."""
    generator = torch.Generator().manual_seed(0)
    query, keys = torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator)
    assert loader.load() is not None
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(d)
    index.add(normalize(keys, dim=1).numpy())
    unit_query = normalize(query, dim=1).numpy()

    def plain() -> object:
        product = normalize(query, dim=1) @ normalize(keys, dim=1).T
        return product.max(dim=1) if k == 1 else product.topk(k, dim=1)

    race(
        2.0 * n * m * d,
        lambda: topk_cosine(query, keys, k),
        torch_mm=lambda: torch.mm(query, keys.T),
        torch_mm_topk=plain,
        faiss_flat_ip=lambda: index.search(unit_query, k),
    )
