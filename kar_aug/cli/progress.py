"""What a person sees while a stage works, on standard error; results go to standard output."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from kar_aug._helpers.foreign import harmless
from kar_aug.cli.pace import Pace
from kar_aug.pipeline.watch import Show, Watch

_PIPE_WIDTH = 140


def _width(stream: TextIO) -> int | None:
    """Into a file or a pipe, lines are as wide as a wide terminal; COLUMNS says otherwise."""
    return None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH


notes = Console(stderr=True, highlight=False, width=_width(sys.stderr))
results = Console(highlight=False, width=_width(sys.stdout))
_PLAIN_SECONDS = 10
_BAR_WIDTH = 30


class _Bar(Progress):
    """A bar, and below it the note: beside each other they fit no terminal of 80 columns."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(f"  {task.fields['note']}", no_wrap=True, overflow="ellipsis")


class _Left(ProgressColumn):
    """What is left, by the recent rate."""

    max_refresh = 1.0

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        return Text(_left(self._pace), style="progress.remaining")


@contextmanager
def bar(title: str, total: int) -> Iterator[Show]:
    """A progress bar; where there is no terminal, a plain line every ten seconds.

    Yields:
        A function of (done so far, a short note).
    """
    pace = Pace(total)
    if not notes.is_terminal:
        yield _plain(title, pace)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(_BAR_WIDTH),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        _Left(pace),
    )
    with _Bar(*columns, console=notes) as progress:
        task = progress.add_task(title, total=total, note="")

        def show(done: int, note: str) -> None:
            pace.hear(done)
            progress.update(task, completed=done, note=harmless(note))

        yield show


def _plain(title: str, pace: Pace) -> Show:
    shown = time.monotonic()

    def show(done: int, note: str) -> None:
        nonlocal shown
        pace.hear(done)
        now = time.monotonic()
        if now - shown >= _PLAIN_SECONDS:
            shown = now
            ending = f", {left}" if (left := _left(pace)) else ""
            notes.print(harmless(f"{title}: {done}/{pace.total} {note}{ending}"), markup=False)

    return show


def _left(pace: Pace) -> str:
    seconds = pace.seconds_left
    return "" if seconds is None else f"{_duration(seconds)} left"


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
    notes.print(_wrapped(sentence, notes), markup=False, soft_wrap=True, style=style)


def tell(result: object) -> None:
    """The same for what came of a stage, a line each."""
    say("  " + str(result).replace("\n", "\n  "))


def output(text: object) -> None:
    """Print what was asked for, on standard output."""
    results.print(harmless(str(text)), markup=False, soft_wrap=True)


def sentence(text: str) -> None:
    """Print what is to be read, there too."""
    results.print(_wrapped(text, results), markup=False, soft_wrap=True)


def _wrapped(text: str, console: Console) -> str:
    """Lines that a terminal would cut within a word are cut between words, and go on below their beginning."""
    lines = harmless(text).split("\n")
    return "\n".join(_line(line, console.width) if console.is_terminal else line for line in lines)


def _line(line: str, width: int) -> str:
    if cell_len(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    wrapper = textwrap.TextWrapper(
        width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.fill(line.strip())


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
    """Print a table: the first column to the left, the others to the right. Where the terminal is too narrow, the first
    goes on in the next line, so that numbers stay whole.

    Args:
        folded: columns of text, to the left too, that do so, too.
    """
    printed = Table(
        title=escape(harmless(title)), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False
    )
    for number, column in enumerate(columns):
        is_text = column in folded
        side: Literal["left", "right"] = "right" if number and not is_text else "left"
        wraps = is_text or not number
        printed.add_column(column, justify=side, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
    for row in rows:
        printed.add_row(*(escape(harmless(cell)) for cell in row))
    results.print(printed)
