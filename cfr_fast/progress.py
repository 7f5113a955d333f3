"""Progress bars with the time left, on standard error, only where somebody is looking."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

T = TypeVar("T")

_display: Progress | None = None
_decided = False


class TimeLeft(ProgressColumn):
    """The time left at the mean pace so far: steps of minutes are as good a measure as short ones."""

    def render(self, task: Task) -> Text:
        """Hours, minutes and seconds; dashes before the first step."""
        left = time_left(task.elapsed, task.completed, task.total)
        shown = "-:--:--" if left is None else str(timedelta(seconds=round(left)))
        return Text(shown, style="progress.remaining")


def time_left(elapsed: float | None, completed: float, total: float | None) -> float | None:
    """Seconds left at the mean pace so far; None while nothing is known."""
    if not elapsed or not completed or total is None:
        return None
    return max(0.0, total - completed) * elapsed / completed


@contextmanager
def display(enabled: bool | None = None) -> Iterator[None]:
    """Show the bars of everything inside; nested calls do as the outermost decided.

    Args:
        enabled: False shows nothing, True shows always, None shows when standard error is a terminal.
    """
    global _display, _decided
    if _decided:
        yield
        return
    _decided = True
    try:
        if not (sys.stderr.isatty() if enabled is None else enabled):
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeLeft(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as _display:
            yield
    finally:
        _display, _decided = None, False


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, advancing a bar on the current display, if there is one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with counter(description, total) as show:
        for number, item in enumerate(items, 1):
            yield item
            show(number)


@contextmanager
def counter(description: str, total: int | None) -> Iterator[Callable[[float], None]]:
    """A bar on the current display, if there is one; gives a function that sets how much is done."""
    if _display is None:
        yield lambda done: None
        return
    screen = _display
    task = screen.add_task(description, total=total)
    try:
        yield lambda done: screen.update(task, completed=done)
    finally:
        screen.remove_task(task)
