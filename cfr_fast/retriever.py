"""The attention retriever: composes RGB features from the memory of normal pairs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from cfr_fast import ops
from cfr_fast.mappers import seeded
from cfr_fast.memory import KeyValueBank
from cfr_fast.ops import Interpolated
from cfr_fast.progress import stage, track


class AttentionRetriever(nn.Module):
    """Wo Σ softmax(d^-0.5 · Wq x · Wk key) Wv value, without biases.

    Args:
        xyz_dim: width of queries and keys (3D features).
        rgb_dim: width of values and output (RGB features).
        width: d, of the projections.
        normalize_qk: whether projected queries and keys are L2-normalised.
    """

    def __init__(self, xyz_dim: int, rgb_dim: int, width: int = 128, normalize_qk: bool = False) -> None:
        super().__init__()
        self.q_proj = nn.Linear(xyz_dim, width, bias=False)
        self.k_proj = nn.Linear(xyz_dim, width, bias=False)
        self.v_proj = nn.Linear(rgb_dim, width, bias=False)
        self.out_proj = nn.Linear(width, rgb_dim, bias=False)
        self.scale = width**-0.5
        self.normalize_qk = normalize_qk

    def forward(self, query: Interpolated, bank: KeyValueBank, index: Tensor) -> Tensor:
        """Attend over the rows `index` (int64 [U, k]) of the bank: U queries [·, Dx] → [U, Dr]."""
        queries, keys, values = self._project(query, bank)
        composed: Tensor = self.out_proj(ops.topk_attention(queries, keys, values, index, self.scale))
        return composed

    def attend_bank(self, query: Interpolated, bank: KeyValueBank, top: int | None = None) -> Tensor:
        """Attend over the whole bank, or over the `top` rows of highest score: N queries → [N, Dr]."""
        queries, keys, values = self._project(query, bank)
        if top is None:
            attended = ops.bank_attention(queries, keys, values, self.scale)
        else:
            index = (queries @ keys.T).topk(top, dim=1).indices
            attended = ops.topk_attention(queries, keys, values, index, self.scale)
        composed: Tensor = self.out_proj(attended)
        return composed

    def project_keys(self, bank: KeyValueBank) -> Tensor:
        """Wk key of every row, normalised where queries are: float [M, d]."""
        return self._unit(self.k_proj(bank.keys))

    def composed_values(self, bank: KeyValueBank) -> Tensor:
        """Wo Wv value of every row: what `forward` averages, since the output projection is linear."""
        return bank.values @ (self.out_proj.weight @ self.v_proj.weight).T

    def attend(
        self,
        query: Interpolated,
        keys: Tensor,
        values: Tensor,
        index: Tensor,
        rows: Tensor | None = None,
        count: Tensor | None = None,
    ) -> Tensor:
        """As forward, from projected keys [M, d] and composed values [M, Dr] that serve every query.

        Args:
            query, keys, values, index: `index` has a row for every query that is asked for.
            rows: int64 [U], the queries that are; None: all.
            count: int64 [1], how many of them are real; None: all. Zeros come for the others.
        """
        queries = self._queries(query, rows, count)
        return ops.topk_attention(queries, keys, values, index, self.scale, count)

    def _project(self, query: Interpolated, bank: KeyValueBank) -> tuple[Tensor, Tensor, Tensor]:
        return self._queries(query), self.project_keys(bank), self.v_proj(bank.values)

    def _queries(
        self, query: Interpolated, rows: Tensor | None = None, count: Tensor | None = None
    ) -> Tensor:
        return self._unit(query.project(self.q_proj.weight).dense(rows, count))

    def _unit(self, rows: Tensor) -> Tensor:
        return normalize(rows, dim=1) if self.normalize_qk else rows


def train_retriever(
    shots: Sequence[tuple[Interpolated, Interpolated]],
    bank: KeyValueBank,
    *,
    candidates: int | None,
    epochs: int,
    learning_rate: float,
    most_queries: int,
    width: int,
    normalize_qk: bool,
    seed: int,
) -> AttentionRetriever:
    """Train the retriever to give back the RGB features of the shots from their 3D features.

    Loss 1 − mean cos(output, R), Adam, one shot a step. The candidates of a query depend on frozen features
    only and are found once.

    Args:
        shots: per normal sample the features of its valid pixels, (rgb, xyz).
        bank: the rows to attend over.
        candidates: rows of highest cosine between raw 3D query and raw keys to attend over; None attends over
            the whole bank.
        epochs: passes over the shots.
        learning_rate: of Adam.
        most_queries: pixels of a shot used in one step, drawn anew every time.
        width: of the projections.
        normalize_qk: see AttentionRetriever.
        seed: of the initialisation and all draws.

    Returns:
        The retriever in eval mode, without gradients.
    """
    xyz_dim, rgb_dim = bank.keys.shape[1], bank.values.shape[1]
    retriever = seeded(AttentionRetriever, xyz_dim, rgb_dim, width, normalize_qk, seed=seed)
    assert isinstance(retriever, AttentionRetriever)
    retriever.to(bank.keys.device)
    optimizer = torch.optim.Adam(retriever.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    with stage("Finding candidates"):
        indices = [None if candidates is None else find_candidates(xyz, bank, candidates) for _, xyz in shots]
    for _ in track(range(epochs), "Training retriever"):
        for shot in torch.randperm(len(shots), generator=generator).tolist():
            rgb, xyz = shots[shot]
            drawn = torch.randperm(rgb.pixels, generator=generator)[:most_queries].to(rgb.offset.device)
            index, query = indices[shot], xyz.select(drawn)
            output = (
                retriever.attend_bank(query, bank) if index is None else retriever(query, bank, index[drawn])
            )
            optimizer.zero_grad()
            loss = 1 - cosine_similarity(output, rgb.select(drawn).dense(), dim=1, eps=1e-6).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return retriever.eval().requires_grad_(False)


def find_candidates(
    query: Interpolated,
    bank: KeyValueBank,
    candidates: int,
    rows: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """The bank rows of highest cosine between raw 3D query and raw keys.

    Args:
        query: N rows.
        bank: of M pairs.
        candidates: most rows to find.
        rows: int64 [U], the queries that are asked for; None: all.
        count: int64 [1], how many of them are real; None: all. Zeros come for the others.

    Returns:
        int64 [N or U, min(candidates, M)].
    """
    return ops.topk_interpolated(query, bank.keys, min(candidates, bank.keys.shape[0]), rows, count)
