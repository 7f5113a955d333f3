"""One piece of work spread over processes, as ``torchrun`` starts them: each item goes to whoever is free."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from cfr_fast.errors import CFRError, InputError
from cfr_fast.progress import counter

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

T = TypeVar("T")

BEAT = 1.0  # seconds between two signs of life
SILENCE = 60.0  # seconds without one after which a process counts as gone
AGAIN = "what is done is kept: the same command goes on from there"


class WorkersError(CFRError):
    """A process of the run failed or died; the message says which one, and at what."""


class Workers:
    """The processes of this run; a single one unless ``torchrun`` (RANK, WORLD_SIZE) says otherwise.

    They share a key-value store alone, no collective operation: one that dies leaves nobody hanging.

    Args:
        rank, size: which of how many this is.
        local: number of this process on its machine; chooses the GPU.
        store: of ``torch.distributed``; None for a single process.
    """

    def __init__(self, rank: int = 0, size: int = 1, local: int = 0, store: Store | None = None) -> None:
        self.rank, self.size, self.local, self._store = rank, size, local, store
        self._rounds = 0

    @staticmethod
    def join() -> Workers:
        """Meet the other processes that the environment speaks of.

        Raises:
            InputError: the environment is incomplete, or the others cannot be reached.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return Workers()
        from torch.distributed import rendezvous  # type: ignore[attr-defined]

        try:
            store, rank, size = next(rendezvous("env://"))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                "RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT", "as torchrun sets them", reason
            ) from (error)
        found = Workers(rank, size, int(os.environ.get("LOCAL_RANK", str(rank))), store)
        store.set(f"who/{rank}", f"{socket.gethostname()} {os.getpid()}")
        store.set(f"at/{rank}", "")
        signal.signal(signal.SIGTERM, found._terminated)
        threading.Thread(target=found._beat, daemon=True).start()
        return found

    @property
    def leads(self) -> bool:
        """Whether this is the process that plans, shows progress and writes what belongs to all."""
        return self.rank == 0

    def device(self, wanted: str) -> str:
        """``auto`` becomes a GPU of this process's own where there are any."""
        import torch

        if wanted != "auto" or self.size == 1 or not torch.cuda.is_available():
            return wanted
        return f"cuda:{self.local % torch.cuda.device_count()}"

    def lead(self, make: Callable[[], T]) -> T:
        """What the leading process makes (JSON-able); the others wait for it.

        Raises:
            Exception: what `make` raised, in the leading process; the others leave quietly (SystemExit).
        """
        key = self._key("lead")
        if self._store is None:
            return make()
        if self.leads:
            try:
                made = make()
            except BaseException:
                self._store.set(key, "")
                raise
            self._store.set(key, json.dumps(made))
            return made
        content = self._wait(key)
        if not content:
            raise SystemExit(0)
        found: T = json.loads(content)
        return found

    def work(
        self, title: str, items: Sequence[T], describe: Callable[[T], str], do: Callable[[T], Any]
    ) -> None:
        """Do every item once, wherever a process is free; all return when all is done.

        The leading process shows how many of all are done, and the time left. The first error ends the work:
        items begun are finished, no other is started.

        Args:
            title: of the progress bar.
            items: the same in every process.
            describe: says what an item is, for errors.
            do: does one.

        Raises:
            Exception: in a single process, what `do` raised.
            WorkersError: in the leading process, when another one failed or died.
        """
        if self._store is None:
            with counter(title, len(items)) as show:
                for number, item in enumerate(items, 1):
                    do(item)
                    show(number)
            return
        key, store = self._key("work"), self._store
        with self._watching(title, key, len(items)) as lost:
            while not lost and not store.check([f"{key}/failed"]):
                number = store.add(f"{key}/next", 1) - 1
                if number >= len(items):
                    break
                what = describe(items[number])
                store.set(f"at/{self.rank}", what)
                try:
                    do(items[number])
                except Exception as error:
                    store.compare_set(f"{key}/failed", "", f"process {self.rank}, {what}: {_reason(error)}")
                    if os.environ.get("CFR_FAST_TRACEBACK"):
                        raise
                    break
                finally:
                    store.set(f"at/{self.rank}", "")
                store.add(f"{key}/done", 1)
            store.set(f"{key}/left/{self.rank}", "")
            while self.leads and not lost and not self._all_left(key):
                time.sleep(0.05)
        if self.leads and lost:
            raise WorkersError(f"{lost[0]}; {AGAIN}")
        if self.leads and store.check([f"{key}/failed"]):
            raise WorkersError(f"{store.get(f'{key}/failed').decode()}; {AGAIN}")

    def _all_left(self, key: str) -> bool:
        assert self._store is not None
        return self._store.check([f"{key}/left/{rank}" for rank in range(self.size)])

    @contextmanager
    def _watching(self, title: str, key: str, total: int) -> Iterator[list[str]]:
        """In the leading process: show what all have done, and list who has gone silent."""
        lost: list[str] = []
        if not self.leads:
            yield lost
            return
        stop = threading.Event()
        with counter(title, total) as show:
            arguments = (key, show, lost, stop)
            thread = threading.Thread(target=self._watch, args=arguments, daemon=True)
            thread.start()
            try:
                yield lost
            finally:
                stop.set()
                thread.join()

    def _watch(self, key: str, show: Callable[[float], None], lost: list[str], stop: threading.Event) -> None:
        assert self._store is not None
        seen: dict[int, tuple[int, float]] = {}
        while not stop.wait(0.2):
            show(self._store.add(f"{key}/done", 0))
            for rank in range(1, self.size):
                beats, now = self._store.add(f"beat/{rank}", 0), time.monotonic()
                if rank not in seen or beats != seen[rank][0]:
                    seen[rank] = beats, now
                gone = now - seen[rank][1] > SILENCE and not self._store.check([f"{key}/left/{rank}"])
                if gone and not lost:
                    lost.append(f"{self._where(rank)} has stopped: no sign of life for {SILENCE:g} s")

    def _beat(self) -> None:
        assert self._store is not None
        while True:
            try:
                self._store.add(f"beat/{self.rank}", 1)
            except Exception:  # the leading process is done, and its store with it
                return
            time.sleep(BEAT)

    def _where(self, rank: int) -> str:
        assert self._store is not None
        what = self._store.get(f"at/{rank}").decode() if self._store.check([f"at/{rank}"]) else ""
        return f"process {rank}" + (f", {what}," if what else "")

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        """On SIGTERM, which ``torchrun`` sends to all others when one dies: one says which, and all leave."""
        dead = [rank for rank in range(self.size) if not self._lives(rank)]
        if self.rank == min(set(range(self.size)) - set(dead)):
            cause = " and ".join(f"{self._where(rank)} has died" for rank in dead) or "stopped by a signal"
            sys.exit(f"cfr: {cause}; {AGAIN}")
        time.sleep(2)  # while this process lives nobody takes it for the one that died
        sys.exit(1)

    def _lives(self, rank: int) -> bool:
        """Whether a process lives, as far as can be told: those of other machines count as living."""
        assert self._store is not None
        if not self._store.check([f"who/{rank}"]):
            return True
        host, pid = self._store.get(f"who/{rank}").decode().rsplit(" ", 1)
        if host != socket.gethostname():
            return True
        try:
            os.kill(int(pid), 0)
        except OSError:
            return False
        return True

    def _key(self, name: str) -> str:
        """All processes come here in the same order, so that counting tells their keys apart."""
        self._rounds += 1
        return f"{name}/{self._rounds}"

    def _wait(self, key: str) -> str:
        assert self._store is not None
        while not self._store.check([key]):
            time.sleep(0.05)
        return self._store.get(key).decode()


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, CFRError) and text else f"unexpected {type(error).__name__}: {text}"
