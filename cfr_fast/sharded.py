"""A memory bank too large for one device, spread over the ranks of ``torch.distributed``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from cfr_fast import ops
from cfr_fast.collective import Fact, Ranks, fingerprint
from cfr_fast.errors import InputError
from cfr_fast.ops.checks import check_count, check_matrix, check_same, check_valid
from cfr_fast.ops.reference import BLOCK


def own_rows(rows: int, group: dist.ProcessGroup | None = None) -> slice:
    """This rank's share of `rows` rows: consecutive, in the order of the ranks, none more than one longer."""
    ranks = Ranks(group, torch.device("cpu"))
    return slice(rows * ranks.rank // ranks.size, rows * (ranks.rank + 1) // ranks.size)


class ShardedBank:
    """Bank rows spread over the ranks of a process group, searched as if they lay in one process.

    Making one and calling its methods are collective: all ranks do so in the same order and pass the same
    queries, thresholds and so on, and all get the same answer. Before anything is computed they compare
    fingerprints of what they were given, which reads the queries once and, on CUDA, waits for the device.
    Rows are numbered through, those of rank 0 first. No method has gradients.

    A rank that dies or comes too late ends the others' call with a WorkersError, at the latest after the
    timeout given to ``torch.distributed.init_process_group`` or ``new_group``; with NCCL it is torch's
    watchdog that ends the process after that time. The group is of no use afterwards.

    Args:
        keys: float [M_r, D], this rank's rows; their number may differ from rank to rank, and be 0.
        values: float [M_r, Dv], for `bank_attention`; None on all ranks where it is not needed.
        group: None is the default group; where ``torch.distributed`` was not initialised, this process alone.

    Raises:
        InputError: wrong shape, dtype or device; widths or dtypes that differ between ranks.
        WorkersError: another rank's arguments were refused, or it died; so in all methods.
    """

    def __init__(
        self, keys: Tensor, values: Tensor | None = None, group: dist.ProcessGroup | None = None
    ) -> None:
        device = keys.device if isinstance(keys, Tensor) else torch.device("cpu")
        self._ranks = Ranks(group, device)

        def check() -> Mapping[str, Fact]:
            check_matrix("keys", keys)
            if values is not None:
                check_matrix("values", values, rows=keys.shape[0])
                check_same("values", values, keys)
            width = -1 if values is None else values.shape[1]
            return {"call": "ShardedBank", "dtype": str(keys.dtype), "keys": keys.shape[1], "values": width}

        self._ranks.agree(check)
        self.keys = keys.detach()
        self.values = None if values is None else values.detach()
        rows = torch.tensor([keys.shape[0]], device=keys.device)
        self.sizes = tuple(int(count) for count in self._ranks.gathered(rows))
        self.first = sum(self.sizes[: self._ranks.rank])

    def __len__(self) -> int:
        """M, the number of rows on all ranks."""
        return sum(self.sizes)

    @torch.no_grad()
    def topk_cosine(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """`ops.topk_cosine` over the rows of all ranks.

        Where the kernels serve, float32 with k ≤ 32, the answer is that of one process bit for bit; elsewhere
        similarities go through matrix products, whose rounding depends on how many rows there are.

        Args:
            query: float [N, D], the same on every rank.
            k: 0 ≤ k ≤ M.

        Returns:
            similarity: float [N, k], descending.
            index: int64 [N, k], rows of the whole bank; equal similarities in ascending order of row.

        Raises:
            InputError: wrong shape, dtype or device; `k` out of range; arguments that differ between ranks.
        """

        def check() -> Mapping[str, Fact]:
            check_count("k", k, 0, len(self), "a number of keys")
            return {"call": "topk_cosine", **self._query_facts(query), "k": k}

        self._ranks.agree(check)
        counts = [min(k, size) for size in self.sizes]
        own = counts[self._ranks.rank]
        similarity, index = ops.topk_cosine(query, self.keys, own)

        def lists(found: Tensor) -> list[Tensor]:  # all that are exchanged have one length
            padded = self._ranks.gathered(pad(found, (0, k - own)))
            return [part[:, :count] for part, count in zip(padded, counts, strict=True)]

        return merged_topk(lists(similarity), lists(index + self.first), k)

    @torch.no_grad()
    def confidence_filter(self, query: Tensor, threshold: float, valid: Tensor | None = None) -> Tensor:
        """`ops.confidence_filter` over the rows of all ranks; bit for bit, where the kernels serve (float32).

        A query is near as soon as it is near a row of any rank.

        Args:
            query: float [N, D], the same on every rank.
            threshold: θ, a cosine distance.
            valid: bool [N], the same on every rank; None: all rows count.

        Returns:
            int64 [U], ascending.

        Raises:
            InputError: wrong shape, dtype or device; a threshold that is not a number; arguments that differ
                between ranks.
        """

        def check() -> Mapping[str, Fact]:
            facts = self._query_facts(query)
            if valid is not None:
                check_valid("valid", valid, query.shape[0], query)
            if threshold != threshold:
                raise InputError("threshold", "a cosine distance", "NaN")
            shown = "all" if valid is None else fingerprint(valid)
            return {"call": "confidence_filter", **facts, "threshold": float(threshold), "valid": shown}

        self._ranks.agree(check)
        far = torch.zeros(query.shape[0], dtype=torch.uint8, device=query.device)
        far[ops.confidence_filter(query, self.keys, threshold, valid)] = 1
        return self._ranks.reduced(far, dist.ReduceOp.MIN).nonzero()[:, 0]

    @torch.no_grad()
    def bank_attention(self, query: Tensor, scale: float) -> Tensor:
        """`ops.bank_attention` over the rows of all ranks, up to rounding.

        Each rank attends over its own rows; the results are weighted by their shares of the whole softmax,
        which follow from the log-sum-exp of each rank's logits. The kernels do not give that out, so it is
        computed beside them, in blocks of plain PyTorch: one more product of queries and keys.

        Args:
            query: float [N, D], the same on every rank.
            scale: factor on the dot products.

        Returns:
            float [N, Dv], the same on every rank.

        Raises:
            InputError: wrong shape, dtype or device; an empty bank, or one without values; arguments that
                differ between ranks.
        """
        keys, values = self.keys, self.values

        def check() -> Mapping[str, Fact]:
            if values is None:
                raise InputError("values", "those of the rows, given to ShardedBank", "none")
            if len(self) == 0:
                raise InputError("keys", "at least one row on any rank", "none")
            return {"call": "bank_attention", **self._query_facts(query), "scale": float(scale)}

        self._ranks.agree(check)
        assert values is not None  # checked
        own = query.new_zeros(query.shape[0], values.shape[1])
        if keys.shape[0] > 0:
            own = ops.bank_attention(query, keys, values, scale)
        totals = torch.stack(self._ranks.gathered(_log_total(query, keys, scale)))
        share = totals.softmax(dim=0)[self._ranks.rank, :, None].to(own.dtype)
        # A rank all of whose logits are −∞ has no result, and no share either.
        part = torch.where(share == 0, 0, share * own)
        return self._ranks.reduced(part, dist.ReduceOp.SUM)

    def _query_facts(self, query: Tensor) -> dict[str, Fact]:
        check_matrix("query", query, columns=self.keys.shape[1])
        check_same("query", query, self.keys)
        return {"rows of query": query.shape[0], "query": fingerprint(query)}


def merged_topk(similarity: Sequence[Tensor], index: Sequence[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The k best of lists that `ops.topk_cosine` found in consecutive parts of a bank.

    Args:
        similarity: for each part float [N, k_r], descending; the k_r sum up to k at least.
        index: int64 of the same shapes, rows of the whole bank.
        k: length of the merged lists.

    Returns:
        similarity [N, k] and index [N, k] of the whole bank.
    """
    # A stable sort leaves equal values in the order in which they stand: that of their rows, within a list
    # and from list to list. It takes NaN for the highest value, as the op does.
    values, order = torch.cat(list(similarity), dim=1).sort(dim=1, descending=True, stable=True)
    return values[:, :k].contiguous(), torch.cat(list(index), dim=1).gather(1, order[:, :k])


def _log_total(query: Tensor, keys: Tensor, scale: float) -> Tensor:
    """log Σ exp(scale · q · key) of every query over this rank's keys: float64 [N], −∞ without keys."""
    if keys.shape[0] == 0:
        return query.new_full(query.shape[:1], -torch.inf, dtype=torch.float64)
    totals = [query.new_empty(0, dtype=torch.float64)]
    step = max(1, BLOCK // keys.shape[0])
    for start in range(0, query.shape[0], step):
        logits = query[start : start + step] @ keys.T * scale
        # −∞ less −∞ would be NaN, so the highest is a finite number at least.
        highest = logits.amax(dim=1, keepdim=True).clamp_min(torch.finfo(logits.dtype).min)
        total = logits.sub_(highest).exp_().sum(dim=1)
        # In float64, for a logit of hundreds would leave few digits for the sum.
        totals.append(highest[:, 0].double() + total.double().log())
    return torch.cat(totals)
