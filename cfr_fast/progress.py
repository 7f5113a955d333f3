"""Progress bars with the time left, on standard error, only where somebody is looking."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
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


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, advancing a bar on the current display, if there is one."""
    if _display is None:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    screen = _display
    task = screen.add_task(description, total=total)
    try:
        for item in items:
            yield item
            screen.advance(task)
    finally:
        screen.remove_task(task)
