"""Collective operations of ``torch.distributed``, with one clear error where a rank dies or disagrees."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.workers import WorkersError

Fact = int | float | str
_MOST = 8  # facts that ranks compare at a time
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Ranks:
    """The ranks of a process group; this process alone where ``torch.distributed`` was not initialised.

    Args:
        group: None is the default group.
        device: of the tensors that are exchanged; the group's backend must know it (gloo: cpu, NCCL: cuda).

    Raises:
        InputError: a group that this process does not belong to.
    """

    def __init__(self, group: dist.ProcessGroup | None, device: torch.device) -> None:
        self._group, self._device = group, device
        self.rank, self.size = 0, 1
        if dist.is_available() and dist.is_initialized():
            self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise InputError("group", "a process group that this process belongs to", "another one")

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, in their order; of one shape and dtype everywhere.

        Raises:
            WorkersError: a rank has died, failed, or not come within the group's timeout; so in `reduced`.
        """
        if self.size == 1:
            return [tensor]
        tensor = tensor.contiguous()
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        with self._exchanging():
            dist.all_gather(found, tensor, group=self._group)
        return found

    def reduced(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        """The contiguous tensor, overwritten by the sum, minimum, … over all ranks."""
        if self.size > 1:
            with self._exchanging():
                dist.all_reduce(tensor, op=operation, group=self._group)
        return tensor

    def agree(self, check: Callable[[], Mapping[str, Fact]]) -> None:
        """Make sure that all ranks ask for the same, before any of them begins.

        Args:
            check: raises InputError where this rank's arguments are bad; else gives what has to be the same
                on all ranks, by the argument's name, first what is called.

        Raises:
            InputError: what `check` raised, or an argument that differs from another rank's.
            WorkersError: another rank refused its arguments; or as in `gathered`.
        """
        refusal: InputError | None = None
        facts: Mapping[str, Fact] = {}
        try:
            facts = check()
        except InputError as error:
            refusal = error
        mine = [int(refusal is not None), *(_number(fact) for fact in facts.values())]
        table = torch.tensor(mine + [0] * (1 + _MOST - len(mine)), dtype=torch.int64, device=self._device)
        told = [row.tolist() for row in self.gathered(table)]
        if refusal is not None:
            raise refusal
        for rank, row in enumerate(told):
            if row[0]:
                raise WorkersError(
                    f"rank {rank} of {self.size} refused its arguments; its own error says why"
                )
        for place, name in enumerate(facts, 1):
            for rank, row in enumerate(told):
                if row[place] != told[self.rank][place]:
                    raise InputError(name, "the same on every rank", f"another on rank {rank} than here")

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of gloo and NCCL alike
            reason = " ".join(str(error).split())[:200]
            raise WorkersError(
                f"rank {self.rank} of {self.size}: another rank has died, failed, or not come within the "
                f"timeout of the process group ({reason})"
            ) from error


def fingerprint(tensor: Tensor) -> int:
    """A number that depends on every bit of a matrix or vector and on the order of its rows."""
    bits = tensor.detach().contiguous().view(_BITS[tensor.element_size()])
    rows = (bits if bits.dim() == 2 else bits[:, None]).sum(dim=1, dtype=torch.int64)
    return int((rows * torch.arange(1, len(rows) + 1, device=rows.device)).sum())


def _number(fact: Fact) -> int:
    if isinstance(fact, str):
        return zlib.crc32(fact.encode())
    if isinstance(fact, float):
        (bits,) = struct.unpack("<q", struct.pack("<d", fact))
        return int(bits)
    return fact
