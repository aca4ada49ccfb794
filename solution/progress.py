"""News of a command at work, on stderr: progress bars on a terminal, single lines elsewhere."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False, soft_wrap=True)
T = TypeVar("T")

listener: Callable[[], None] | None = None
"""In a process that works for another one: called at every step."""


_hearer: ContextVar[Callable[[str], None] | None] = ContextVar("hearer", default=None)
_turn: ContextVar[Callable[[str], str] | None] = ContextVar("turn", default=None)


def say(text: str) -> None:
    """One line of news on stderr (stdout is kept for results)."""
    if (turn := _turn.get()) is not None:
        text = turn(text)
    console.print(text, markup=False)
    news(text)


def news(text: str) -> None:
    """What a command is at, for whoever hears this thread; it is printed nowhere."""
    if (hearer := _hearer.get()) is not None:
        hearer(text)


def heard_by(hearer: Callable[[str], None]) -> AbstractContextManager[None]:
    """Within: each line that this thread says, and its `news`, are given to `hearer`, too."""
    return _set_within(_hearer, hearer)


def turned_by(turn: Callable[[str], str]) -> AbstractContextManager[None]:
    """Within: each line that this thread says is said as `turn` makes it."""
    return _set_within(_turn, turn)


@contextmanager
def _set_within(variable: ContextVar[T | None], value: T) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class Bar:
    """A running count with a free text; `advance` is cheap enough to be called for every batch."""

    def __init__(self, progress: Progress | None, total: int, title: str):
        self._progress = progress
        self._task = progress.add_task(title, total=total, note="") if progress else None
        self._title, self._total, self._done = title, total, 0
        self._note = ""
        self._started = self._last_line = time.monotonic()

    def expect(self, steps: int) -> None:
        """Set the steps that are still to come."""
        if not self._done:
            self._started = time.monotonic()
        self._total = self._done + steps
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=self._total)

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        """Count `steps` more, with the text that stands behind the count from now on."""
        self._done += steps
        if note is not None:
            self._note = note
        if listener is not None:
            listener()
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=steps, note=self._note)
            return
        now = time.monotonic()
        if now - self._last_line >= 60 and self._done < self._total:
            self._last_line = now
            remaining = (now - self._started) / max(self._done, 1) * (self._total - self._done)
            say(f"{self._title}: {self._done}/{self._total} {self._note} (about {remaining / 60:.1f} min left)")


def draws_bars() -> bool:
    """Whether bars can be drawn: on a terminal, and in a notebook that has rich's package for it (ipywidgets)."""
    if console.is_jupyter:
        return importlib.util.find_spec("ipywidgets") is not None
    return sys.stderr.isatty()


@contextmanager
def progress_bar(total: int, title: str) -> Iterator[Bar]:
    """A bar with elapsed time and ETA on a terminal and in a notebook; elsewhere at most one line a minute."""
    if console.quiet or not draws_bars():
        yield Bar(None, total, title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(progress, total, title)
