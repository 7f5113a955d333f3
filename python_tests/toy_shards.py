"""Searches in a bank that two processes share: a program for each of them, and what it searches."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from cfr_fast.errors import CFRError
from cfr_fast.sharded import ShardedBank, own_rows

LATE = 4.0  # seconds that a rank keeps the others waiting
PATIENCE = 1.5  # seconds of the group that waits for it


@dataclass(frozen=True)
class Case:
    """A bank, the queries put to it, and how many of its rows rank 0 has (None: its fair share)."""

    query: Tensor
    keys: Tensor
    values: Tensor
    valid: Tensor | None = None
    threshold: float = 0.55
    k: int = 3
    split: int | None = None

    @property
    def scale(self) -> float:
        """Of attention's logits."""
        return float(self.query.shape[1] ** -0.5)


def cases() -> dict[str, Case]:
    """What two processes are to answer as one does."""

    def made(n: int, m: int, d: int = 33, split: int | None = None, **more: object) -> Case:
        generator = torch.Generator().manual_seed(1000 * n + m)
        query, keys, values = (torch.randn(*size, generator=generator) for size in ((n, d), (m, d), (m, 17)))
        return Case(query, keys, values, split=split, **more)  # type: ignore[arg-type]

    odd = made(90, 201, split=120)
    odd.keys[150:180] = odd.keys[10:40]  # equal similarities on both ranks
    odd.keys[[5, 190]] = 0
    odd.query[7] = 0
    odd.query[8:20] = odd.keys[10:22]
    nan = made(40, 64, split=32)
    nan.keys[[3, 50]] = torch.nan
    nan.query[5] = torch.nan
    masked = made(60, 50, valid=torch.arange(60) % 3 > 0)
    double = made(30, 41)
    double = Case(double.query.double(), double.keys.double(), double.values.double())
    far = made(20, 30, split=4)
    far.keys[:4] *= 200  # the rows of rank 0 are all of a query's softmax, or nothing
    nowhere = made(15, 30, d=3, split=10)
    nowhere.query.abs_()
    nowhere.keys[:10] = -torch.inf  # logits of rank 0: no share of any softmax
    return {
        "fair": made(130, 257),
        "ties and zeros": odd,
        "not a number": nan,
        "only some are valid": masked,
        "nothing on rank 0": made(25, 40, split=0),
        "nothing on rank 1": made(25, 40, split=40),
        "fewer rows than ranks": made(9, 1, k=1),
        "no rows at all": made(9, 0, k=0),
        "no queries": made(0, 21),
        "nothing asked for": made(5, 21, k=0),
        "more than a rank has": made(30, 40, k=28, split=15),
        "the longest list of the kernels": made(30, 70, k=32, split=9),
        "longer lists": made(30, 70, k=50),
        "float64": double,
        "large logits": far,
        "infinite logits": nowhere,
        "wide": made(200, 900, d=192, threshold=0.78, split=333),
    }


def answers(bank: ShardedBank, case: Case) -> list[Tensor]:
    """Of all methods: similarity, index, unreliable rows, and attention where there are rows."""
    found = [*bank.topk_cosine(case.query, case.k)]
    found.append(bank.confidence_filter(case.query, case.threshold, case.valid))
    return [*found, bank.bank_attention(case.query, case.scale)] if len(bank) else found


def disagreements(rank: int) -> dict[str, Callable[[], object]]:
    """Calls in which the ranks do not do the same."""
    query, keys = torch.arange(12.0).reshape(4, 3), torch.ones(5, 3)
    bank = ShardedBank(keys)
    one = rank == 1
    return {
        "other queries": lambda: bank.topk_cosine(query + rank, 2),
        "other order": lambda: bank.topk_cosine(query.flip(0) if one else query, 2),
        "fewer queries": lambda: bank.topk_cosine(query[: 4 - rank], 2),
        "other k": lambda: bank.topk_cosine(query, 2 + rank),
        "other threshold": lambda: bank.confidence_filter(query, 0.5 + rank),
        "other mask": lambda: bank.confidence_filter(query, 0.5, torch.ones(4).bool() if one else None),
        "other method": lambda: bank.topk_cosine(query, 2) if one else bank.confidence_filter(query, 0.5),
        "bad on one rank": lambda: bank.topk_cosine(query[:, : 3 - rank], 2),
        "k beyond all rows": lambda: bank.topk_cosine(query, 11),
        "no values": lambda: bank.bank_attention(query, 1.0),
        "other widths": lambda: ShardedBank(torch.ones(5, 3 + rank)),
        "other dtypes": lambda: ShardedBank(keys.double() if one else keys),
        "values on one rank": lambda: ShardedBank(keys, keys if one else None),
        "keys that are none": lambda: ShardedBank([1.0] if one else keys),  # type: ignore[arg-type]
        "empty bank": lambda: ShardedBank(keys[:0], keys[:0]).bank_attention(query, 1.0),
    }


def refused(call: Callable[[], object]) -> str:
    try:
        call()
    except CFRError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"


def wait_for_the_late(rank: int) -> tuple[str, float]:
    """What a rank is told, and how soon, when rank 1 comes late."""
    group = dist.new_group(timeout=timedelta(seconds=PATIENCE))
    bank = ShardedBank(torch.ones(2, 3), group=group)
    if rank == 1:
        time.sleep(LATE)
    begun = time.monotonic()
    return refused(lambda: bank.topk_cosine(torch.ones(1, 3), 1)), time.monotonic() - begun


def main() -> int:
    out = Path(sys.argv[1])
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank = dist.get_rank()
    found = {}
    for name, case in cases().items():
        rows = len(case.keys)
        own = own_rows(rows)
        if case.split is not None:
            own = slice(0, case.split) if rank == 0 else slice(case.split, rows)
        found[name] = answers(ShardedBank(case.keys[own], case.values[own]), case)
    torch.save(found, out / f"{rank}.pt")
    told = {name: refused(call) for name, call in disagreements(rank).items()}
    late, seconds = wait_for_the_late(rank)
    bank = ShardedBank(torch.ones(2, 3))
    (out / f"{rank}.json").write_text(json.dumps({"told": told, "late": late, "seconds": seconds}))
    if rank == 1:
        os._exit(7)
    try:
        bank.topk_cosine(torch.ones(1, 3), 1)
    except CFRError as error:
        print(f"cfr: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
