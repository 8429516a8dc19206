"""What a person sees while a stage works, on standard error; results go to standard output."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, TextIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from kar_aug._foreign import harmless
from kar_aug.pipeline.watch import Show, Watch

_PIPE_WIDTH = 140


def _width(stream: TextIO) -> int | None:
    """Into a file or a pipe, lines are as wide as a wide terminal; COLUMNS says otherwise."""
    return None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH


notes = Console(stderr=True, highlight=False, width=_width(sys.stderr))
results = Console(highlight=False, width=_width(sys.stdout))
_PLAIN_SECONDS = 10


@contextmanager
def bar(title: str, total: int) -> Iterator[Show]:
    """A progress bar; where there is no terminal, a plain line every ten seconds.

    Yields:
        A function of (done so far, a short note).
    """
    if not notes.is_terminal:
        yield _plain(title, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=notes) as progress:
        task = progress.add_task(title, total=total, note="")
        yield lambda done, note: progress.update(task, completed=done, note=harmless(note))


def _plain(title: str, total: int) -> Show:
    started = shown = time.monotonic()
    first: int | None = None  # what was done already when this run began

    def show(done: int, note: str) -> None:
        nonlocal shown, first
        first = done if first is None else first
        now = time.monotonic()
        if now - shown >= _PLAIN_SECONDS:
            shown = now
            left = (now - started) * (total - done) / (done - first) if done > first else None
            ending = "" if left is None else f", {_duration(left)} left"
            notes.print(harmless(f"{title}: {done}/{total} {note}{ending}"), markup=False)

    return show


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextmanager
def stage(title: str, seconds: dict[str, float]) -> Iterator[None]:
    """Announce a stage, and note how long it took."""
    started = time.monotonic()
    notes.print(f"[bold]{title}[/bold]")
    yield
    seconds[title] = time.monotonic() - started


def say(sentence: str, style: str | None = None) -> None:
    """Print a sentence for the person at the terminal. What of it others wrote, a server or a table, drives nothing
    there; and so below.
    """
    notes.print(harmless(sentence), markup=False, soft_wrap=True, style=style)


def tell(result: object) -> None:
    """The same for what came of a stage, a line each."""
    say("  " + str(result).replace("\n", "\n  "))


def output(text: object) -> None:
    """Print what was asked for, on standard output."""
    results.print(harmless(str(text)), markup=False, soft_wrap=True)


class Terminal(Watch):
    """Shows a stage's work."""

    def bar(self, title: str, total: int) -> AbstractContextManager[Show]:
        return bar(title, total)

    def note(self, sentence: str) -> None:
        say(sentence)

    def result(self, text: str) -> None:
        tell(text)


def table(
    title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, folded: Collection[str] = ()
) -> None:
    """Print a table: the first column to the left, the others to the right.

    Args:
        folded: columns of text, to the left too, that go on in the next line where the terminal is too narrow.
    """
    printed = Table(
        title=escape(harmless(title)), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False
    )
    for number, column in enumerate(columns):
        is_text = column in folded
        side: Literal["left", "right"] = "right" if number and not is_text else "left"
        printed.add_column(column, justify=side, no_wrap=not is_text, overflow="fold" if is_text else "ellipsis")
    for row in rows:
        printed.add_row(*(escape(harmless(cell)) for cell in row))
    results.print(printed)
