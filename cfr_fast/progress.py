"""Progress bars with the time left, on standard error, only where somebody is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

_display: Progress | None = None
_watcher: Callable[[str], AbstractContextManager[object]] = nullcontext


@contextmanager
def display(enabled: bool | None = None) -> Iterator[None]:
    """Show the bars of everything inside; nested calls share one display.

    Args:
        enabled: False shows nothing, True shows always, None shows when standard error is a terminal.
    """
    global _display
    show = sys.stderr.isatty() if enabled is None else enabled
    if _display is not None or not show:
        yield
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as _display:
        try:
            yield
        finally:
            _display = None


@contextmanager
def watched(watcher: Callable[[str], AbstractContextManager[object]]) -> Iterator[None]:
    """Run every stage inside ``watcher(description)``, to time it for example."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


@contextmanager
def stage(description: str) -> Iterator[None]:
    """Show that something of unknown length is under way, on the current display, if there is one."""
    with _watcher(description), _task(description, None):
        yield


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, advancing a bar on the current display, if there is one; a stage of its own."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with _watcher(description), _task(description, total) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def _task(description: str, total: int | None) -> Iterator[Callable[[], object]]:
    """A bar on the display, and what advances it."""
    if _display is None:
        yield lambda: None
        return
    screen = _display
    task = screen.add_task(description, total=total)
    try:
        yield lambda: screen.advance(task)
    finally:
        screen.remove_task(task)
