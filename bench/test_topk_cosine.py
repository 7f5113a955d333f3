from __future__ import annotations

import faiss
import pytest
import torch
from conftest import Race
from test_confidence_filter import pixel_features
from torch.nn.functional import normalize

from cfr_fast.ops import loader, topk_cosine


@pytest.mark.parametrize(
    ("kind", "n", "m", "d", "k"),
    [
        ("random", 8192, 5017, 768, 3),
        ("random", 4096, 20070, 768, 3),
        ("random", 50176, 5017, 768, 1),
        ("smooth", 8192, 5017, 768, 3),  # neighbouring pixels: keys nearly as good as the best are many
    ],
    ids=lambda value: str(value),
)
def test_topk_cosine(race: Race, threads: int, kind: str, n: int, m: int, d: int, k: int) -> None:
    """The bare product is the least that an exact search has to do; it leaves [N, M] behind, unsearched."""
    generator = torch.Generator().manual_seed(0)
    if kind == "random":
        query, keys = torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator)
    else:
        query, keys = pixel_features(1, 0.3)[::6][:n], pixel_features(2, 0.3)[::10][:m].contiguous()
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
